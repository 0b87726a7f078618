//! A mutex without poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks the mutex, also after a thread has panicked while it held the lock.
///
/// For state that is whole between any two statements; state that a panic can leave half changed needs the poison.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::lock;

    #[test]
    fn a_lock_outlives_the_panic_of_its_holder() {
        let shared = Arc::new(Mutex::new(7));
        let held = Arc::clone(&shared);
        let panicked = std::thread::spawn(move || {
            let _guard = lock(&held);
            std::panic::resume_unwind(Box::new("while the lock is held"));
        });
        assert!(panicked.join().is_err() && shared.is_poisoned());
        assert_eq!(*lock(&shared), 7);
    }
}
