// A disk that fails, without a file system of its own: preloaded into a process (LD_PRELOAD), it lets writes to files of SQLite fail with the error that
// the file named by FAILING_DISK holds, a number. No such file: nothing fails. `open` stands for a medium that was mounted for reading alone.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int (*real_open)(const char *, int, ...);

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int told(void) {
  const char *file = getenv("FAILING_DISK");
  if (!real_open) real_open = real("open64");
  int fd = file ? real_open(file, O_RDONLY) : -1;
  if (fd < 0) return 0;
  char text[16] = {0};
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  return n > 0 ? atoi(text) : 0;
}

static int is_store(const char *path) { return strstr(path, "fleet.db") != NULL && strstr(path, "-shm") == NULL; }

static int is_store_fd(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return is_store(path);
}

static int fails(int fd) {
  if (!is_store_fd(fd)) return 0;
  int error = told();
  if (!error || error == EROFS) return 0;
  errno = error;
  return 1;
}

int fsync(int fd) {
  int (*next)(int) = real("fsync");
  return fails(fd) ? -1 : next(fd);
}

int fdatasync(int fd) {
  int (*next)(int) = real("fdatasync");
  return fails(fd) ? -1 : next(fd);
}

int open64(const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  if (!real_open) real_open = real("open64");
  if ((flags & (O_RDWR | O_WRONLY | O_CREAT)) && is_store(path) && told() == EROFS) {
    errno = EROFS;
    return -1;
  }
  return real_open(path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = va_arg(list, mode_t);
  va_end(list);
  return open64(path, flags, mode);
}
