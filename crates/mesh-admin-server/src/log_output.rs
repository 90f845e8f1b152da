//! Standard output, which whoever reads it may leave unread: lines are written by a thread of their own, and lost where too many wait,
//! which is counted and said. Lines of connections and requests are taken without waiting; any other is out when it has been said,
//! unless nobody reads: that is waited for once.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_core::lock::UnpoisonedMutex as _;
use prometheus::IntCounter;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The target of lines of connections and requests, which may wait a little for others.
pub const ACCESS: &str = "access";
/// Octets that wait to be written at most.
const WAITING: usize = 1 << 20;
/// Octets whose memory is kept when they are written.
const KEPT: usize = 64 << 10;
/// How long a line of [`ACCESS`] waits for others.
const GATHERING: Duration = Duration::from_millis(100);
/// How long another line is waited for.
const SAYING: Duration = Duration::from_millis(250);

/// Where a program's lines go; shared by all its threads.
#[derive(Clone)]
pub struct LogOutput(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    more: Condvar,
    /// Some of it is written.
    written: Condvar,
    lost: IntCounter,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// What waits is to be written without waiting for more.
    at_once: bool,
    /// Octets that were taken, and that are written, since the beginning.
    taken: u64,
    written: u64,
    /// What was to be written was waited for in vain.
    is_stuck: bool,
    /// Lines that found no room since that was said last.
    lost: u64,
}

impl LogOutput {
    /// Standard output, written by a thread that lives as long as the process.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let help = "Lines of the log that were lost, because nobody read what was written before";
        let lost = IntCounter::new("mesh_stdout_lines_lost_total", help).map_err(io::Error::other)?;
        let shared = Shared { state: Mutex::default(), more: Condvar::new(), written: Condvar::new(), lost };
        let output = Self(Arc::new(shared));
        let writer = output.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write(out))?;
        Ok(output)
    }

    /// The metric of lines that were lost, for a program's registry.
    #[must_use]
    pub fn lost(&self) -> IntCounter {
        self.0.lost.clone()
    }

    /// Takes a whole line, to be written with others a moment later.
    pub fn gather(&self, line: &str) {
        drop(self.put(line.as_bytes(), false));
    }

    /// Waits until all that was taken is written, at most for so long.
    pub fn finish(&self, limit: Duration) {
        let mut state = self.state();
        state.at_once = true;
        self.0.more.notify_one();
        drop(self.wait(state, limit));
    }

    /// Waits until what was taken so far is written.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let taken = state.taken;
        let waited = self.0.written.wait_timeout_while(state, limit, |state| state.written < taken);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes a whole line, if somebody reads.
    fn say(&self, line: &[u8]) {
        let state = self.put(line, true);
        if !state.is_stuck {
            let taken = state.taken;
            let mut state = self.wait(state, SAYING);
            state.is_stuck = state.written < taken;
        }
    }

    /// Takes a whole line, where there is room for it.
    fn put(&self, line: &[u8], at_once: bool) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.waiting.len() + line.len() > WAITING {
            state.lost += 1;
            self.0.lost.inc();
            return state;
        }
        let is_first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        state.taken += line.len() as u64;
        if is_first || (at_once && !state.at_once) {
            state.at_once |= at_once;
            self.0.more.notify_one();
        }
        state
    }

    /// Writes what waits, again and again.
    fn write(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let taken = self.take(&mut lines);
            // Nobody reads: there is nobody to tell.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            let mut state = self.state();
            state.written += taken;
            state.is_stuck = false;
            drop(state);
            self.0.written.notify_all();
            lines.clear();
            lines.shrink_to(KEPT);
        }
    }

    /// Waits for lines, and takes all that there are; how many octets of them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let state = self.state();
        let mut state =
            self.0.more.wait_while(state, |state| state.waiting.is_empty()).unwrap_or_else(PoisonError::into_inner);
        let gathered = self.0.more.wait_timeout_while(state, GATHERING, |state| !state.at_once);
        state = gathered.unwrap_or_else(PoisonError::into_inner).0;
        mem::swap(lines, &mut state.waiting);
        state.at_once = false;
        let taken = lines.len() as u64;
        let lost = mem::take(&mut state.lost);
        drop(state);
        if lost > 0 {
            let said = format!(
                "{{\"level\":\"WARN\",\"message\":\"lines of the log lost: nobody read it\",\"lines\":{lost}}}\n"
            );
            lines.extend_from_slice(said.as_bytes());
        }
        taken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock_unpoisoned()
    }
}

/// One line on its way: what is written to it at once is taken whole.
pub struct LogLine<'a> {
    output: &'a LogOutput,
    at_once: bool,
}

impl Write for LogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.at_once {
            self.output.say(line);
        } else {
            drop(self.output.put(line, false));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine { output: self, at_once: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LogLine<'a> {
        LogLine { output: self, at_once: metadata.target() != ACCESS }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let output = LogOutput::to(writer).expect("a thread");
        let mut expected = String::new();
        for number in 0..100 {
            let line = format!("{{\"number\":{number}}}\n");
            if number % 3 == 0 {
                output.make_writer().write_all(line.as_bytes()).expect("taken");
            } else {
                output.gather(&line);
            }
            expected.push_str(&line);
        }
        output.finish(LONG);
        let mut read = vec![0; expected.len()];
        { reader }.read_exact(&mut read).expect("all of it");
        assert_eq!(read, expected.as_bytes());
        assert_eq!(output.lost().get(), 0);
    }

    #[test]
    fn what_is_said_is_out_when_it_has_been_said() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let output = LogOutput::to(writer).expect("a thread");
        output.gather("before\n");
        output.make_writer().write_all(b"said\n").expect("taken");
        assert_eq!(rustix::io::ioctl_fionread(&reader).expect("a number"), "before\nsaid\n".len() as u64);
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let output = LogOutput::to(writer).expect("a thread");
        let line = format!("{{\"line\":\"{}\"}}\n", "x".repeat(1000));
        let taken = 5_000;
        for _ in 0..taken {
            output.gather(&line);
        }
        // The first that has something to say waits a moment, the others do not.
        for _ in 0..3 {
            output.make_writer().write_all(line.as_bytes()).expect("taken");
        }
        assert!(output.state().is_stuck);
        let taken = taken + 3;
        let lost = output.lost().get();
        assert!(lost > 0 && lost < taken, "{lost}");
        // Once somebody reads, what was kept is there, and how much was not.
        let (mut kept, mut said) = (0, 0);
        let mut lines = BufReader::new(reader).lines().map(|line| line.expect("a line"));
        while kept + said < taken {
            let next = lines.next().expect("a line");
            match next.split_once("nobody read it\",\"lines\":") {
                Some((_, count)) => said += count.trim_end_matches('}').parse::<u64>().expect("a number"),
                None => kept += u64::from(next.len() + 1 == line.len()),
            }
        }
        assert_eq!(said, lost);
        output.make_writer().write_all(b"the next\n").expect("taken");
        assert_eq!(lines.next().as_deref(), Some("the next"));
    }
}
