//! What the kernel tells of packets and calls that it dropped.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use mesh_abi::{Counter, drop::ARRIVING, map_names};

use super::{
    address,
    ring::{Ring, RingError},
};

/// Something that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropEvent {
    /// When, on the clock of [`super::now`].
    pub at: Duration,
    /// Why.
    pub reason: Counter,
    /// The pod's network namespace, by its cookie, where it is known.
    pub netns_cookie: Option<u64>,
    /// Whether it was for the pod, and not from it.
    pub arriving: bool,
    /// Where it says that it comes from, where its headers could be read.
    pub source: Option<SocketAddr>,
    /// Where it was to go.
    pub destination: Option<SocketAddr>,
}

/// The kernel's events. A ring buffer has one reader: there may be one of these.
pub struct DropEvents(Ring);

impl DropEvents {
    /// Opens the pinned ring buffer in `maps`; in a runtime.
    ///
    /// # Errors
    /// It is not there, or the runtime cannot watch it.
    pub(super) fn open(maps: &Path) -> Result<Self, RingError> {
        Ring::open(maps, map_names::DROP_EVENTS).map(Self)
    }

    /// Waits until there are events.
    ///
    /// # Errors
    /// The runtime is ending.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.0.ready().await
    }

    /// The next event, if there is one now.
    pub fn next(&mut self) -> Option<DropEvent> {
        loop {
            let event = parse(&self.0.next()?);
            if event.is_some() {
                return event;
            }
        }
    }
}

/// `None`: it is of a reason that this daemon does not know.
fn parse(event: &mesh_abi::DropEvent) -> Option<DropEvent> {
    let known = |address: mesh_abi::SockAddress| {
        (address != mesh_abi::SockAddress::default()).then(|| address::from_map(address))
    };
    Some(DropEvent {
        at: Duration::from_nanos(event.at_ns),
        reason: Counter::ALL.get(usize::try_from(event.reason).ok()?).copied()?,
        netns_cookie: (event.netns_cookie != 0).then_some(event.netns_cookie),
        arriving: event.direction == ARRIVING,
        source: known(event.source),
        destination: known(event.destination),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_is_not_known_and_an_unknown_reason_is_left_out() {
        let whole = mesh_abi::DropEvent {
            at_ns: 7,
            netns_cookie: 9,
            source: address::to_map("10.0.0.1:80".parse().expect("an address")),
            reason: Counter::DroppedUnattestedSyn as u32,
            direction: ARRIVING,
            ..Default::default()
        };
        let event = parse(&whole).expect("an event");
        assert_eq!((event.netns_cookie, event.destination, event.arriving), (Some(9), None, true));
        assert_eq!(event.source, Some("10.0.0.1:80".parse().expect("an address")));
        assert_eq!(parse(&mesh_abi::DropEvent { netns_cookie: 0, ..whole }).expect("an event").netns_cookie, None);
        assert_eq!(parse(&mesh_abi::DropEvent { reason: Counter::COUNT, ..whole }), None);
    }
}
