/* Counts what asks the C library for memory. Loaded before it, and asked through ctypes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static long calls;

long heap_calls(void)
{
    return calls;
}

void *malloc(size_t size)
{
    ++calls;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    ++calls;
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    ++calls;
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    ++calls;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    ++calls;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : 12;
}

void *mmap(void *address, size_t length, int protection, int flags, int file, long offset)
{
    ++calls;
    return ((void *(*)(void *, size_t, int, int, int, long))dlsym(RTLD_NEXT, "mmap"))(
        address, length, protection, flags, file, offset);
}
