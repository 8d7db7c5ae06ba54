"""What threads write at the same time if there is no GIL; if there is one, the caller holds it."""


cdef extern from *:
    """
    #if !defined(Py_GIL_DISABLED)
    static inline void *fastgru_exchange(void **place, void *value)
    {
        void *was = *place;
        *place = value;
        return was;
    }
    #define fastgru_load(place) (*(place))
    #define fastgru_count_of(place) (*(place))
    #define fastgru_count_up(place) (void)++*(place)
    #elif defined(_MSC_VER)
    #include <intrin.h>
    #define fastgru_exchange(place, value) _InterlockedExchangePointer(place, value)
    #define fastgru_load(place) (*(void *volatile *)(place))
    #define fastgru_count_of(place) _InterlockedOr64(place, 0)
    #define fastgru_count_up(place) (void)_InterlockedIncrement64(place)
    #else
    #define fastgru_exchange(place, value) __atomic_exchange_n(place, value, __ATOMIC_ACQ_REL)
    #define fastgru_load(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define fastgru_count_of(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define fastgru_count_up(place) (void)__atomic_add_fetch(place, 1, __ATOMIC_ACQ_REL)
    #endif
    """
    void *exchange "fastgru_exchange" (void **place, void *value) noexcept  # returns the old value
    void *load "fastgru_load" (void **place) noexcept
    long long count_of "fastgru_count_of" (long long *place) noexcept
    void count_up "fastgru_count_up" (long long *place) noexcept
