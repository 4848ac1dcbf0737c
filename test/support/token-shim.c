// A PKCS #11 library that passes everything on to another one and misbehaves as a file says: the first word of $SHIM_PLAN decides what becomes
// of each C_Sign. Each C_Login adds a byte to $SHIM_LOGINS.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdatomic.h>
#include <unistd.h>

#define CK_PTR *
#define CK_DECLARE_FUNCTION(type, name) type name
#define CK_DECLARE_FUNCTION_POINTER(type, name) type (*name)
#define CK_CALLBACK_FUNCTION(type, name) type (*name)
#define NULL_PTR 0
#include "pkcs11.h"

static CK_FUNCTION_LIST_PTR real;
static CK_FUNCTION_LIST ours;

static void plan(char *word, size_t size) {
  FILE *file = fopen(getenv("SHIM_PLAN"), "r");
  memset(word, 0, size);
  if (file) {
    if (!fgets(word, (int)size, file)) word[0] = 0;
    fclose(file);
  }
}

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR application, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR session) {
  static atomic_int opened;
  char word[32];
  plan(word, sizeof word);
  if (!strncmp(word, "one-session", 11) && atomic_fetch_add(&opened, 1) > 0) return CKR_SESSION_COUNT;
  return real->C_OpenSession(slot, flags, application, notify, session);
}

/* A library for one thread says so. */
static CK_RV initialize(CK_VOID_PTR arguments) {
  char word[32];
  plan(word, sizeof word);
  if (!strncmp(word, "one-thread", 10) && arguments && ((CK_C_INITIALIZE_ARGS_PTR)arguments)->flags & CKF_OS_LOCKING_OK) return CKR_CANT_LOCK;
  return real->C_Initialize(arguments);
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE type, CK_UTF8CHAR_PTR pin, CK_ULONG length) {
  FILE *file = fopen(getenv("SHIM_LOGINS"), "a");
  if (file) {
    fputc('.', file);
    fclose(file);
  }
  return real->C_Login(session, type, pin, length);
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info) {
  char word[32];
  CK_RV result = real->C_GetTokenInfo(slot, info);
  plan(word, sizeof word);
  if (!strncmp(word, "final-try", 9)) info->flags |= CKF_USER_PIN_FINAL_TRY;
  if (!strncmp(word, "locked", 6)) info->flags |= CKF_USER_PIN_LOCKED;
  return result;
}

static atomic_int inside;

/* Waits until three are here at once; 0 when that did not happen in time. */
static int together(void) {
  int met = 0;
  atomic_fetch_add(&inside, 1);
  for (int i = 0; i < 400 && !met; i++) {
    met = atomic_load(&inside) >= 3;
    usleep(5000);
  }
  /* Until all of them have seen it. */
  usleep(50000);
  atomic_fetch_sub(&inside, 1);
  return met;
}

static CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR signature, CK_ULONG_PTR signed_length) {
  char word[32];
  CK_RV result;
  plan(word, sizeof word);
  if (!strncmp(word, "stall", 5)) sleep(5);
  if (!strncmp(word, "removed", 7)) return CKR_DEVICE_REMOVED;
  if (!strncmp(word, "crash", 5)) abort();
  if (!strncmp(word, "slow", 4)) usleep(100000);
  if (!strncmp(word, "together", 8) && !together()) return CKR_FUNCTION_FAILED;
  result = real->C_Sign(session, data, length, signature, signed_length);
  if (result == CKR_OK && !strncmp(word, "flip", 4)) signature[*signed_length / 2] ^= 1;
  return result;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
  CK_RV result;
  void *library = dlopen(getenv("SHIM_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
  CK_C_GetFunctionList get = library ? (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList") : 0;
  if (!get) return CKR_GENERAL_ERROR;
  result = get(&real);
  if (result != CKR_OK) return result;
  ours = *real;
  ours.C_Initialize = initialize;
  ours.C_OpenSession = open_session;
  ours.C_Login = login;
  ours.C_GetTokenInfo = token_info;
  ours.C_Sign = sign;
  *list = &ours;
  return CKR_OK;
}
