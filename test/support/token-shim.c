// A PKCS #11 library that passes everything on to another one and misbehaves as a file says: the first word of $SHIM_PLAN decides what becomes
// of each C_Sign. Each C_Login adds a byte to $SHIM_LOGINS.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR signature, CK_ULONG_PTR signed_length) {
  char word[32];
  CK_RV result;
  plan(word, sizeof word);
  if (!strncmp(word, "stall", 5)) sleep(5);
  if (!strncmp(word, "removed", 7)) return CKR_DEVICE_REMOVED;
  if (!strncmp(word, "crash", 5)) abort();
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
  ours.C_Login = login;
  ours.C_GetTokenInfo = token_info;
  ours.C_Sign = sign;
  *list = &ours;
  return CKR_OK;
}
