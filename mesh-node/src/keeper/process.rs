//! The keeper's side: it starts the daemon, holds what that tells it to hold, and starts it again.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind, signal},
    time::sleep,
};

use super::{Message, RESTARTS};
use crate::{
    CANNOT_RUN,
    handover::until_vacant,
    packets::{Channel, ChannelError},
};

/// After so many crashes within [`LATELY`] the next one is the last: it would only happen again.
const CRASHES: usize = 3;
/// See [`CRASHES`].
const LATELY: Duration = Duration::from_secs(60);
/// How long connections wait at most for a daemon that was started again to ask for the listeners. It first has to have its
/// configuration.
const WAIT: Duration = Duration::from_secs(20);
/// Listeners that are held: some 250 pods of the most that a kubelet takes by itself have four each.
const MOST: usize = 1 << 16;

/// For so many seconds nobody is in charge before a daemon that has handed over is started again: one that crashed comes back sooner.
const VACANT: u32 = 5;

/// Runs the daemon with this process's arguments until it ends for good; with its exit code. Whoever is in charge of the node answers
/// at `admin_socket`.
pub async fn run(admin_socket: &Path) -> ExitCode {
    let mut keeper = Keeper::default();
    let ended =
        match signal(SignalKind::terminate()).and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?))) {
            // A terminal sends SIGINT to both; this one only must not end of it.
            Ok((terminate, _interrupt)) => keeper.keep_running(terminate, admin_socket).await,
            Err(error) => Err(error),
        };
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the daemon cannot be started below a process that keeps its listeners");
        ExitCode::FAILURE
    })
}

#[derive(Default)]
struct Keeper {
    held: BTreeMap<u64, OwnedFd>,
    restarts: u64,
    /// The daemon that runs has asked for the listeners: it has come up.
    is_up: bool,
    crashes: Vec<Instant>,
    /// This process was asked to end, and has passed that on.
    is_ending: bool,
    /// The daemon that runs has handed over to the next.
    has_handed_over: bool,
}

impl Keeper {
    async fn keep_running(&mut self, mut terminate: unix::Signal, admin_socket: &Path) -> io::Result<ExitCode> {
        loop {
            (self.is_up, self.has_handed_over) = (false, false);
            let (channel, childs) = Channel::pair()?;
            let mut child = Command::new(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .env(RESTARTS, self.restarts.to_string())
                .stdin(Stdio::from(childs))
                .spawn()?;
            let status = self.follow(&mut child, channel, &mut terminate).await?;
            if self.has_handed_over && !self.is_ending {
                tracing::info!(%status, "the daemon has handed over and ended; this process waits to be ended as well");
                tokio::select! {
                    _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                    () = until_vacant(admin_socket, VACANT) => {}
                }
                tracing::warn!("no daemon is in charge any more: this one is started again");
                continue;
            }
            if let Some(code) = self.is_over(status, Instant::now()) {
                return Ok(code);
            }
            self.restarts += 1;
            tracing::error!(%status, listeners = self.held.len(), "the daemon crashed: its listeners are kept, and it is started again");
        }
    }

    /// Serves one daemon until its end.
    async fn follow(
        &mut self,
        child: &mut Child,
        channel: Channel,
        terminate: &mut unix::Signal,
    ) -> io::Result<ExitStatus> {
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let mut channel = Some(channel);
        let limit = sleep(WAIT);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                // What it has said until its end counts.
                biased;
                heard = hear(channel.as_ref()) => match heard {
                    Ok((channel, message, sockets)) => {
                        if let Err(error) = self.answer(channel, message, sockets).await {
                            tracing::warn!(%error, ?channel, "a daemon has not got its listeners");
                        }
                    }
                    Err(ChannelError::Malformed(problem)) => tracing::warn!(problem, "a daemon is not understood"),
                    Err(_) => channel = None,
                },
                status = child.wait() => return status,
                _ = terminate.recv() => {
                    self.is_ending = true;
                    if let Some(pid) = pid {
                        // One that is gone needs none.
                        let _ = kill_process(pid, Signal::TERM);
                    }
                }
                () = &mut limit, if !self.is_up && !self.held.is_empty() => {
                    tracing::error!(listeners = self.held.len(), "the daemon has not come back in time: connections are refused until it does");
                    self.held.clear();
                }
            }
        }
    }

    async fn answer(&mut self, channel: &Channel, message: Message, sockets: Vec<OwnedFd>) -> Result<(), ChannelError> {
        match message {
            Message::Lend => {
                self.is_up = true;
                let held: Vec<_> = self.held.values().map(|socket| socket.as_fd()).collect();
                channel.send_all(&held, |last| Message::Lent { last }).await
            }
            Message::Keep { socket } => {
                if self.held.len() < MOST {
                    self.held.extend(sockets.into_iter().next().map(|kept| (socket, kept)));
                }
                Ok(())
            }
            Message::Forget { socket } => {
                self.held.remove(&socket);
                Ok(())
            }
            Message::HandedOver => {
                self.has_handed_over = true;
                self.held.clear();
                Ok(())
            }
            Message::Lent { .. } => Err(ChannelError::Malformed("Lent is the keeper's to say".to_owned())),
        }
    }

    /// What this process ends with; `None` where the daemon is to be started again.
    fn is_over(&mut self, status: ExitStatus, now: Instant) -> Option<ExitCode> {
        self.crashes.retain(|crash| now.duration_since(*crash) < LATELY);
        match status.code() {
            Some(0) => Some(ExitCode::SUCCESS),
            Some(code) if code == i32::from(CANNOT_RUN) => Some(ExitCode::from(CANNOT_RUN)),
            _ if self.is_ending => Some(ExitCode::FAILURE),
            _ if !self.is_up || self.crashes.len() >= CRASHES => {
                tracing::error!(%status, "the daemon crashed as it started, or again and again: its listeners close");
                Some(ExitCode::FAILURE)
            }
            _ => {
                self.crashes.push(now);
                None
            }
        }
    }
}

/// The daemon's next word, and the channel that it came by; never where it has none left.
async fn hear(channel: Option<&Channel>) -> Result<(&Channel, Message, Vec<OwnedFd>), ChannelError> {
    match channel {
        Some(channel) => channel.receive().await.map(|(message, sockets)| (channel, message, sockets)),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn ends(keeper: &mut Keeper, status: i32, now: Instant) -> bool {
        keeper.is_over(ExitStatus::from_raw(status), now).is_some()
    }

    /// As `wait()` has them.
    const KILLED: i32 = 9;
    const FAILED: i32 = 1 << 8;

    #[test]
    fn what_ended_by_itself_or_as_asked_or_never_came_up_is_not_started_again() {
        for (is_ending, is_up, status, over) in [
            (false, true, KILLED, false),
            (false, true, FAILED, false),
            (false, false, KILLED, true),
            (true, true, KILLED, true),
            (true, true, FAILED, true),
            (false, true, 0, true),
            (false, true, i32::from(CANNOT_RUN) << 8, true),
        ] {
            let mut keeper = Keeper { is_ending, is_up, ..Keeper::default() };
            assert_eq!(ends(&mut keeper, status, Instant::now()), over, "{is_ending} {is_up} {status}");
        }
    }

    #[test]
    fn crashes_again_and_again_are_the_last() {
        let mut keeper = Keeper { is_up: true, ..Keeper::default() };
        let start = Instant::now();
        let mut ended = |seconds| ends(&mut keeper, KILLED, start + Duration::from_secs(seconds));
        assert_eq!([0, 10, 20, 30].map(&mut ended), [false, false, false, true]);
        // The first of them is long ago now.
        assert!(!ended(61));
    }
}
