/* faults.c - system calls that fail, and clocks that jump. Loaded before the C library.
 *
 *     FAULT_CALL=n       the n-th call that writes, from 1 on ...
 *     FAULT_ERROR=e      ... and all after it fail with this error, or, without it, the process is killed before it
 *     FAULT_CLOCK=s      the time of day is this many seconds ahead, every other second
 *     FAULT_MONOTONIC=s  the same of the clock that never jumps, and of which the engine must not depend
 *
 * Calls count whose file is on the disk of FAULT_FOLDER, or which have a name in it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long calls;

static long wanted(const char *name)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : 0;
}

/* True of a name in the folder. */
static int named(const char *path)
{
    const char *folder = getenv("FAULT_FOLDER");
    return folder && path && !strncmp(path, folder, strlen(folder));
}

/* True of a file on the folder's disk. */
static int there(int file)
{
    const char *folder = getenv("FAULT_FOLDER");
    struct stat of_file, of_folder;
    return folder && !fstat(file, &of_file) && !stat(folder, &of_folder) && S_ISREG(of_file.st_mode)
        && of_file.st_dev == of_folder.st_dev;
}

/* 1 if the call at hand is to fail; errno says how. */
static int fails(int counts)
{
    if (!counts)
        return 0;
    const long call = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST), first = wanted("FAULT_CALL");
    if (!first || call < first)
        return 0;
    if (!getenv("FAULT_ERROR"))
        kill(getpid(), SIGKILL);
    errno = (int)wanted("FAULT_ERROR");
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *data, size_t size)
{
    return fails(there(file)) ? -1 : REAL(write)(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at)
{
    return fails(there(file)) ? -1 : REAL(pwrite64)(file, data, size, at);
}

int ftruncate64(int file, off64_t size)
{
    return fails(there(file)) ? -1 : REAL(ftruncate64)(file, size);
}

int fsync(int file)
{
    return fails(there(file)) ? -1 : REAL(fsync)(file);
}

int rename(const char *from, const char *to)
{
    return fails(named(to)) ? -1 : REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return fails(named(to)) ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}

int link(const char *from, const char *to)
{
    return fails(named(to)) ? -1 : REAL(link)(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    return fails(named(to)) ? -1 : REAL(linkat)(from_folder, from, to_folder, to, flags);
}

int chmod(const char *path, mode_t mode)
{
    return fails(named(path)) ? -1 : REAL(chmod)(path, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    const int mode = va_arg(more, int);
    va_end(more);
    return fails(named(path) && (flags & O_ACCMODE) != O_RDONLY) ? -1 : REAL(open64)(path, flags, mode);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    const int status = REAL(clock_gettime)(clock, now);
    if (status == 0 && now->tv_sec % 2 && (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC))
        now->tv_sec += wanted(clock == CLOCK_REALTIME ? "FAULT_CLOCK" : "FAULT_MONOTONIC");
    return status;
}
