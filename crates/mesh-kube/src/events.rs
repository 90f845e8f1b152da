//! Kubernetes' Events: what `kubectl describe` shows of an object's past.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::timeout;

/// How long the API server may take for one.
const ANSWER: Duration = Duration::from_secs(5);
/// Octets of a note that the API server takes.
const NOTE: usize = 1_024;

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About<'a> {
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// Its uid, by which `kubectl describe` tells it from an earlier pod of its name.
        uid: String,
    },
    /// A node, by its name.
    Node(&'a str),
}

impl From<About<'_>> for ObjectReference {
    fn from(about: About<'_>) -> Self {
        let (kind, namespace, name, uid) = match about {
            About::Pod { namespace, name, uid } => ("Pod", Some(namespace), name, uid),
            // As kubelet writes them.
            About::Node(name) => ("Node", None, name, name.to_owned()),
        };
        Self {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            uid: Some(uid),
            ..Self::default()
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// Whether somebody may have to look at it.
    pub is_warning: bool,
    /// In a word, as of other Events: `Scheduled`, `Pulled`.
    pub reason: &'static str,
    /// In a sentence; what is longer than 1,024 octets is cut.
    pub note: String,
}

/// Writes Events; one that happens again soon is counted in the first.
pub struct Events(Recorder);

impl Events {
    /// As the controller of a name, on a node.
    #[must_use]
    pub fn by(controller: &str, node: &str, client: Client) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(node.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Writes one.
    ///
    /// # Errors
    /// What the API server says against it; a text where it says nothing within 5 s.
    pub async fn tell(&self, about: About<'_>, occurrence: Occurrence) -> Result<(), String> {
        let Occurrence { is_warning, reason, mut note } = occurrence;
        note.truncate(note.floor_char_boundary(NOTE));
        let event = Event {
            type_: if is_warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Enrolment".to_owned(),
            secondary: None,
        };
        match timeout(ANSWER, self.0.publish(&event, &about.into())).await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(_) => Err("the API server does not answer".to_owned()),
        }
    }
}
