//! What a subscriber has of a type, and how it says so. Pure: responses go in, requests come out.

use std::collections::{BTreeMap, HashMap};

use crate::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use crate::table::Version;
use crate::versions::Versions;

/// Resources that are kept; who serves more is not believed.
const MAX_RESOURCES: usize = 2_000_000;
/// Rejected resources that are remembered.
const MAX_REJECTED: usize = 10_000;
/// Rejected resources that are named in an answer.
const MAX_NAMED: usize = 5;
/// gRPC's code for what is not of the form that it should have.
const INVALID_ARGUMENT: i32 = 3;

/// A change of what a subscriber has.
#[derive(Debug, Clone, Copy)]
pub enum Update<'a> {
    /// The resource is new, or changed.
    Put {
        /// Its name.
        name: &'a str,
        /// The message that it is, encoded.
        message: &'a [u8],
    },
    /// The resource is gone.
    Remove {
        /// Its name.
        name: &'a str,
    },
}

/// The names and versions of what a subscriber has; what they say is its user's to keep.
#[derive(Debug)]
pub struct Replica {
    type_url: &'static str,
    node: Node,
    versions: Versions,
    /// Resources of which a newer version was not taken, and why.
    rejected: BTreeMap<Box<str>, String>,
    complete: Option<Version>,
}

impl Replica {
    /// Of nothing yet.
    #[must_use]
    pub fn new(type_url: &'static str, node: Node) -> Self {
        Self { type_url, node, versions: Versions::default(), rejected: BTreeMap::new(), complete: None }
    }

    /// The first request of a stream, which says what is there from earlier ones, whoever served them.
    pub fn first_request(&mut self) -> DeltaDiscoveryRequest {
        // What was rejected is told again, unless it is gone: that is not told.
        self.rejected.clear();
        let versions = self.versions.iter().map(|(name, version)| (name, format!("{version:016x}")));
        DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            type_url: self.type_url.to_owned(),
            initial_resource_versions: versions.collect::<HashMap<_, _>>(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Takes a response. `apply` takes each change, or says why it cannot; then what was there stays, and the others are taken.
    /// Gives the answer.
    pub fn take(
        &mut self,
        response: &DeltaDiscoveryResponse,
        mut apply: impl FnMut(Update<'_>) -> Result<(), String>,
    ) -> DeltaDiscoveryRequest {
        let mut wrong = Vec::new();
        if response.type_url != self.type_url {
            wrong.push(format!("the response is of type {:?}, not {}", response.type_url, self.type_url));
        } else {
            self.take_resources(response, &mut apply, &mut wrong);
        }
        if wrong.is_empty() && !response.system_version_info.is_empty() {
            match response.system_version_info.parse() {
                Ok(version) => self.complete = Some(version),
                Err(error) => wrong.push(error),
            }
        }
        let message = wrong.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: (!wrong.is_empty()).then_some(Status { code: INVALID_ARGUMENT, message }),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn take_resources(
        &mut self,
        response: &DeltaDiscoveryResponse,
        apply: &mut impl FnMut(Update<'_>) -> Result<(), String>,
        wrong: &mut Vec<String>,
    ) {
        let mut changes = BTreeMap::new();
        for name in &response.removed_resources {
            if self.versions.contain(name) | self.rejected.remove(name.as_str()).is_some() {
                changes.insert(name.as_str(), None);
                // What is gone cannot be of a wrong form.
                let _ = apply(Update::Remove { name });
            }
        }
        for resource in &response.resources {
            let name = resource.name.as_str();
            let taken = match (u64::from_str_radix(&resource.version, 16), &resource.resource) {
                (Ok(_), Some(any)) if any.type_url != self.type_url => Err(format!("it is of type {:?}", any.type_url)),
                (Ok(_), Some(_)) if self.versions.len() + changes.len() >= MAX_RESOURCES => {
                    Err(format!("more than {MAX_RESOURCES} resources"))
                }
                (Ok(version), Some(any)) => apply(Update::Put { name, message: &any.value }).map(|()| version),
                (Err(_), _) => Err(format!("{:?} is no version", resource.version)),
                (_, None) => Err("it says nothing".to_owned()),
            };
            match taken {
                Ok(version) => {
                    changes.insert(name, Some(version));
                    self.rejected.remove(name);
                }
                Err(error) => {
                    wrong.push(format!("{name}: {error}"));
                    if self.rejected.len() < MAX_REJECTED {
                        self.rejected.insert(name.into(), error);
                    }
                }
            }
        }
        self.versions.change(changes);
    }

    /// The newest state of which everything has been told; some of it may have been rejected.
    #[must_use]
    pub const fn complete(&self) -> Option<Version> {
        self.complete
    }

    /// Resources of which the newest version was not taken, and why.
    #[must_use]
    pub const fn rejected(&self) -> &BTreeMap<Box<str>, String> {
        &self.rejected
    }
}
