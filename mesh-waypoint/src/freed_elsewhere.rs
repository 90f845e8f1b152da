//! What is freed by a thread that carries no requests.

use std::{
    ops::Deref,
    sync::{Arc, mpsc},
};

use tokio::runtime::Handle;

/// Something large that threads share: to free 10,000 routes takes some milliseconds, for which this thread's requests would have to
/// wait. Who lets go of it last has a thread free it that may block.
///
/// Two threads that let go at the same moment may each take the other for the last; then one of them frees it.
#[derive(Debug)]
pub(crate) struct FreedElsewhere<T: Send + Sync + 'static> {
    shared: Arc<T>,
    /// Goes after `shared`: who frees it waits for that.
    gone: Option<mpsc::Sender<()>>,
}

impl<T: Send + Sync> FreedElsewhere<T> {
    pub(crate) const fn new(shared: Arc<T>) -> Self {
        Self { shared, gone: None }
    }
}

impl<T: Send + Sync> Clone for FreedElsewhere<T> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl<T: Send + Sync> Deref for FreedElsewhere<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared
    }
}

impl<T: Send + Sync> Drop for FreedElsewhere<T> {
    fn drop(&mut self) {
        if Arc::strong_count(&self.shared) > 1 {
            return;
        }
        // Without a runtime there are no requests that would wait.
        let Ok(runtime) = Handle::try_current() else { return };
        let (gone, waiting) = mpsc::channel();
        let last = self.shared.clone();
        runtime.spawn_blocking(move || {
            // An error is what is waited for: that nobody holds the other end.
            let _ = waiting.recv();
            drop(last);
        });
        self.gone = Some(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::{self, ThreadId};

    use super::*;

    /// Tells who frees it.
    struct Telling(mpsc::Sender<ThreadId>);

    impl Drop for Telling {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).expect("somebody listens");
        }
    }

    #[tokio::test]
    async fn the_last_to_let_go_does_not_free_it() {
        let (tell, told) = mpsc::channel();
        let held = FreedElsewhere::new(Arc::new(Telling(tell)));
        let other = held.clone();
        drop(held);
        assert!(told.try_recv().is_err(), "it is still held");
        drop(other);
        assert_ne!(told.recv().expect("it is freed"), thread::current().id());
    }

    #[test]
    fn without_a_runtime_it_is_freed_at_once() {
        let (tell, told) = mpsc::channel();
        drop(FreedElsewhere::new(Arc::new(Telling(tell))));
        assert_eq!(told.try_recv().expect("it is freed"), thread::current().id());
    }
}
