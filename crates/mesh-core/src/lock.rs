//! Locks that stay usable when a thread panics while it holds them.
//!
//! What the mesh keeps under a lock is whole at every moment: nothing that is done there can leave it half done. So the next one
//! goes on with it, and one task's panic is not made that of all others.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A mutex over what is whole at every moment.
pub trait UnpoisonedMutex<T: ?Sized> {
    /// Waits for the lock, and takes it also where its last holder has panicked.
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> UnpoisonedMutex<T> for Mutex<T> {
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock of many readers over what is whole at every moment.
pub trait UnpoisonedRwLock<T: ?Sized> {
    /// Waits until nobody writes, also where the last one to write has panicked.
    fn read_unpoisoned(&self) -> RwLockReadGuard<'_, T>;

    /// Waits until nobody reads or writes, also where the last one to write has panicked.
    fn write_unpoisoned(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T: ?Sized> UnpoisonedRwLock<T> for RwLock<T> {
    fn read_unpoisoned(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_unpoisoned(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_panic_of_its_holder_leaves_a_lock_usable() {
        let (mutex, lock) = (Mutex::new(1), RwLock::new(1));
        let holder = catch_unwind(AssertUnwindSafe(|| {
            let (mut held, mut written) = (mutex.lock_unpoisoned(), lock.write_unpoisoned());
            (*held, *written) = (2, 2);
            panic!("of the test's own");
        }));
        assert!(holder.is_err() && mutex.is_poisoned() && lock.is_poisoned());
        assert_eq!((*mutex.lock_unpoisoned(), *lock.read_unpoisoned()), (2, 2));
        *lock.write_unpoisoned() = 3;
        assert_eq!(*lock.read_unpoisoned(), 3);
    }
}
