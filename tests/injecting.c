/* Calls of a process that change files under chosen folders: each is counted, and one of them fails as it is told to.
 *
 * Loaded through LD_PRELOAD, so that SQLite's calls are seen as Python's are. Nothing is counted before `inject_arm`.
 * What is written through a memory map is not seen, nor what libc does inside its own functions (fopen, mkstemp). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READ = 1, OPEN = 2, CREATE = 4, WRITE = 8, SYNC = 16, RENAME = 32, UNLINK = 64, MKDIR = 128, TRUNCATE = 256, MODE = 512 };
enum { TRACE, FAIL, SHORT, KILL, TORN };
static const char *NAMES[] = {"read", "open", "create", "write", "sync", "rename", "unlink", "mkdir", "truncate", "mode"};

static char folder_[PATH_MAX];
static size_t folder_size;
static int counted_, mode_, errno_, log_ = -1, busy;
static long at_, count_;
static int sticky_; /* kinds that fail from call `at_` on; 0 where that one call alone does */
static unsigned long long (*site_of_call)(void); /* says from where in the program a call comes; NULL where nobody asks */

/* Count calls of the kinds in `counted` on paths under `folder`, and let number `at` (from 1) go wrong. */
void inject_arm(const char *folder, int counted, long at, int mode, int error, int sticky, int log) {
  snprintf(folder_, sizeof folder_, "%s", folder);
  folder_size = strlen(folder_);
  counted_ = counted, at_ = at, mode_ = mode, errno_ = error, sticky_ = sticky, log_ = log, count_ = 0;
}

void inject_sites(unsigned long long (*site)(void)) { site_of_call = site; }

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static const char *path_of_fd(int fd, char *into) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, into, PATH_MAX - 1);
  into[size < 0 ? 0 : size] = 0;
  return into;
}

static const char *path_at(int dir, const char *path, char *into) {
  if (!path || path[0] == '/') return path ? path : "";
  char base[PATH_MAX];
  if (dir == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; }
  else path_of_fd(dir, base);
  if (snprintf(into, PATH_MAX, "%s/%s", base, path) < 0) into[0] = 0;
  return into;
}

/* Return 1 where the call is to fail, 2 where it is to write half, 3 where it is to write half and be the last. */
static int hit(int kind, const char *path) {
  if (busy || !folder_size || !(counted_ & kind) || strncmp(path, folder_, folder_size) ||
      (path[folder_size] != '/' && path[folder_size] != 0)) return 0;
  busy = 1;
  count_++;
  if (log_ >= 0) {
    int name = __builtin_ctz(kind);
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%016llx %s %s\n", site_of_call ? site_of_call() : 0ULL, NAMES[name], path + folder_size);
    static ssize_t (*raw)(int, const void *, size_t);
    if (!raw) raw = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (raw(log_, line, size) != size) abort();
  }
  busy = 0;
  int now = sticky_ ? count_ >= at_ && (sticky_ & kind) : count_ == at_;
  if (!now || mode_ == TRACE) return 0;
  if (mode_ == KILL) kill(getpid(), SIGKILL);
  if (mode_ == SHORT || mode_ == TORN) return kind == WRITE ? mode_ : 0;
  errno = errno_;
  return FAIL;
}

static int kind_of_open(const char *path, int flags) {
  if ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC))) return READ;
  return (flags & O_CREAT) && access(path, F_OK) ? CREATE : OPEN;
}

#define MODE_ARG(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
#define OPENS(name) int name(const char *path, int flags, ...) { \
  MODE_ARG(flags) char full[PATH_MAX]; REAL(name); \
  if (hit(kind_of_open(path, flags), path_at(AT_FDCWD, path, full))) return -1; \
  return real(path, flags, mode); }
OPENS(open) OPENS(open64)
#define OPENS_AT(name) int name(int dir, const char *path, int flags, ...) { \
  MODE_ARG(flags) char full[PATH_MAX]; REAL(name); const char *at = path_at(dir, path, full); \
  if (hit(kind_of_open(at, flags), at)) return -1; \
  return real(dir, path, flags, mode); }
OPENS_AT(openat) OPENS_AT(openat64)

DIR *opendir(const char *path) {
  char full[PATH_MAX]; REAL(opendir);
  return hit(READ, path_at(AT_FDCWD, path, full)) ? NULL : real(path);
}

static size_t half(int how, size_t size) { return how == FAIL || size < 2 ? size : size / 2; }
static ssize_t end(int how, ssize_t done) { if (how == TORN) kill(getpid(), SIGKILL); return done; }

#define WRITES(name, given, passed) ssize_t name given { \
  char path[PATH_MAX]; REAL(name); int how = counted_ ? hit(WRITE, path_of_fd(fd, path)) : 0; \
  if (how == FAIL) return -1; \
  size = how ? half(how, size) : size; \
  return end(how, real passed); }
WRITES(write, (int fd, const void *data, size_t size), (fd, data, size))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRITES(sendfile, (int fd, int from, off_t *at, size_t size), (fd, from, at, size))
WRITES(sendfile64, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size))
WRITES(writev, (int fd, const struct iovec *parts, int size), (fd, parts, size))
WRITES(copy_file_range, (int from, off64_t *at, int fd, off64_t *to, size_t size, unsigned flags), (from, at, fd, to, size, flags))

#define ON_FD(name, kind, given, passed) int name given { \
  char path[PATH_MAX]; REAL(name); \
  return counted_ && hit(kind, path_of_fd(fd, path)) == FAIL ? -1 : real passed; }
ON_FD(fsync, SYNC, (int fd), (fd))
ON_FD(syncfs, SYNC, (int fd), (fd))
ON_FD(fdatasync, SYNC, (int fd), (fd))
ON_FD(ftruncate, TRUNCATE, (int fd, off_t size), (fd, size))
ON_FD(ftruncate64, TRUNCATE, (int fd, off64_t size), (fd, size))
ON_FD(fchmod, MODE, (int fd, mode_t mode), (fd, mode))

#define ON_PATH(name, kind, dir, given, passed) int name given { \
  char full[PATH_MAX]; REAL(name); \
  return hit(kind, path_at(dir, path, full)) == FAIL ? -1 : real passed; }
ON_PATH(truncate, TRUNCATE, AT_FDCWD, (const char *path, off_t size), (path, size))
ON_PATH(truncate64, TRUNCATE, AT_FDCWD, (const char *path, off64_t size), (path, size))
ON_PATH(unlink, UNLINK, AT_FDCWD, (const char *path), (path))
ON_PATH(unlinkat, UNLINK, dir, (int dir, const char *path, int flags), (dir, path, flags))
ON_PATH(rmdir, UNLINK, AT_FDCWD, (const char *path), (path))
ON_PATH(mkdir, MKDIR, AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, MKDIR, dir, (int dir, const char *path, mode_t mode), (dir, path, mode))
ON_PATH(chmod, MODE, AT_FDCWD, (const char *path, mode_t mode), (path, mode))
ON_PATH(fchmodat, MODE, dir, (int dir, const char *path, mode_t mode, int flags), (dir, path, mode, flags))
ON_PATH(rename, RENAME, AT_FDCWD, (const char *from, const char *path), (from, path))
ON_PATH(renameat, RENAME, dir, (int old, const char *from, int dir, const char *path), (old, from, dir, path))
ON_PATH(link, RENAME, AT_FDCWD, (const char *from, const char *path), (from, path))
ON_PATH(linkat, RENAME, dir, (int old, const char *from, int dir, const char *path, int flags), (old, from, dir, path, flags))
ON_PATH(symlink, RENAME, AT_FDCWD, (const char *from, const char *path), (from, path))
