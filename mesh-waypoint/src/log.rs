//! Standard output: lines of requests are gathered, all others go out at once.

use std::{
    io::{self, BufWriter, Stdout, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The target of the lines of requests and connections.
const ACCESS: &str = "access";
/// Bytes that are gathered at most.
const GATHERED: usize = 64 << 10;
/// How long a line waits at most.
const FLUSH: Duration = Duration::from_millis(100);

/// Standard output, shared by all threads.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<BufWriter<Stdout>>>);

impl Log {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self(Arc::new(Mutex::new(BufWriter::with_capacity(GATHERED, io::stdout()))))
    }

    /// Writes out what is gathered, again and again, on a thread of its own, as long as the process lives.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn flush_for_good(&self) -> io::Result<()> {
        let log = self.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        let flush = move || {
            loop {
                std::thread::sleep(FLUSH);
                log.flush();
            }
        };
        thread.spawn(flush).map(drop)
    }

    /// Takes a whole line of a request, to be written out with others.
    pub(crate) fn gather(&self, line: &str) {
        // Nobody reads: there is nobody to tell.
        let _ = self.lock().write_all(line.as_bytes());
    }

    /// Writes out what is gathered.
    pub(crate) fn flush(&self) {
        // Nobody reads: there is nobody to tell.
        let _ = self.lock().flush();
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line on its way.
pub(crate) struct Line<'a> {
    out: MutexGuard<'a, BufWriter<Stdout>>,
    at_once: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.at_once {
            let _ = self.out.flush();
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { out: self.lock(), at_once: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { out: self.lock(), at_once: metadata.target() != ACCESS }
    }
}
