//! What two daemons say to each other. Each message is one packet, with descriptors beside it where it says so.

use serde::{Deserialize, Serialize};

/// Changes with anything that a daemon of the version before would not understand. [`Message::Hello`] and
/// [`Message::Declined`] stay as they are for ever, so that different versions can tell each other that they differ.
pub(super) const PROTOCOL: u32 = 1;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Message {
    /// The successor's first word.
    Hello(Hello),
    /// The predecessor will not hand over, and goes on.
    Declined {
        /// Why, for people.
        reason: String,
    },
    /// The predecessor will; with its metrics and its readiness listener.
    Welcome {
        /// Its process id, in its own pid namespace.
        pid: u32,
        /// How many daemons there have been in its chain of handovers, itself included.
        generation: u64,
    },
    /// The successor asks for the pods' listeners, and the predecessor holds still from now on.
    Lend,
    /// Some of the pods' listeners.
    Lent {
        /// Whether these are the last.
        last: bool,
    },
    /// The successor is ready to carry everything that is new.
    Commit,
    /// The predecessor takes nothing new any more. With a socket for each daemon that was draining already: its end is
    /// that daemon's end.
    Committed {
        /// Those daemons' process ids, in the order of the sockets.
        draining: Vec<u32>,
    },
}

/// Who the successor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`PROTOCOL`]
    pub(super) protocol: u32,
    /// [`mesh_abi::ABI_VERSION`]: both daemons write the same maps.
    pub(super) abi: u32,
    /// The program's version, for people.
    pub(super) version: String,
    /// The node that it is for.
    pub(super) node: String,
    /// Its process id, in its own pid namespace.
    pub(super) pid: u32,
}

impl Hello {
    /// This program's, on this node.
    pub(super) fn of(node: &str) -> Self {
        Self {
            protocol: PROTOCOL,
            abi: mesh_abi::ABI_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: node.to_owned(),
            pid: std::process::id(),
        }
    }

    /// Why a daemon that would say `ours` does not hand over to the one that says this.
    pub(super) fn objection(&self, ours: &Self) -> Option<String> {
        if (self.protocol, self.abi) != (ours.protocol, ours.abi) {
            let Self { protocol, abi, version, .. } = self;
            return Some(format!(
                "the successor ({version}) speaks handover {protocol} and maps {abi}, this daemon ({}) handover {} and maps {}",
                ours.version, ours.protocol, ours.abi
            ));
        }
        let other_node = self.node != ours.node;
        other_node.then(|| format!("the successor is for node {}, this daemon for {}", self.node, ours.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_protocol_maps_and_node_are_handed_over_to() {
        let ours = Hello::of("a");
        assert_eq!(Hello { version: "9.9.9".into(), pid: 7, ..ours.clone() }.objection(&ours), None);
        let others = [
            Hello { protocol: PROTOCOL + 1, ..ours.clone() },
            Hello { abi: ours.abi + 1, ..ours.clone() },
            Hello::of("b"),
        ];
        for other in others {
            assert!(other.objection(&ours).is_some(), "{other:?}");
        }
    }

    #[test]
    fn the_first_words_are_the_same_for_ever() {
        let hello = r#"{"type":"hello","protocol":2,"abi":3,"version":"1.0.0","node":"a","pid":7,"more":true}"#;
        let expected = Hello { protocol: 2, abi: 3, version: "1.0.0".into(), node: "a".into(), pid: 7 };
        assert_eq!(serde_json::from_str::<Message>(hello).unwrap(), Message::Hello(expected));
        let declined = r#"{"type":"declined","reason":"so"}"#;
        assert_eq!(serde_json::to_string(&Message::Declined { reason: "so".into() }).unwrap(), declined);
    }
}
