//! What came of routes when they were last looked at. It is the same as long as they are, and what they name and are attached to.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::Service;
use mesh_core::l7::Rule;

use super::super::changes::Change;
use super::super::gateways::Attachment;
use super::Subject;
use crate::finding::Finding;
use crate::gateway_api::Route;
use crate::object::{Key, Located};
use crate::status::RouteStatus;

/// What came of each route, by its kind and name.
#[derive(Debug, Default)]
pub(in crate::translate) struct KnownRoutes(HashMap<(&'static str, Key), Outcome>);

/// What came of a route by itself.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The route.
    pub(super) located: Located<Route>,
    /// The Services that it is attached to, with the port.
    pub(super) subjects: Vec<(Subject, Option<u16>)>,
    /// The listeners.
    pub(super) at_gateways: Vec<Attachment>,
    /// Its rules.
    pub(super) rules: Vec<Arc<Rule>>,
    /// What its status says.
    pub(super) status: RouteStatus,
    /// What is wrong with it.
    pub(super) findings: Vec<Finding>,
}

impl KnownRoutes {
    /// Takes out what is known of a route, if it is as it was.
    pub(super) fn take(&mut self, located: &Located<Route>) -> Option<Outcome> {
        self.0.remove(&name(located)).filter(|outcome| outcome.located == *located)
    }

    pub(super) fn insert(&mut self, outcome: Outcome) {
        self.0.insert(name(&outcome.located), outcome);
    }

    /// Forgets all: something else has changed that a route may name.
    pub(in crate::translate) fn clear(&mut self) {
        self.0.clear();
    }
}

fn name(located: &Located<Route>) -> (&'static str, Key) {
    let name = &located.object.name;
    (located.object.kind, (Arc::clone(&name.namespace), Arc::clone(&name.name)))
}

/// Whether a Service came, went or changed in what routes see of it, which its endpoints are not.
pub(in crate::translate) fn is_seen(change: &Change<Service>) -> bool {
    let without_endpoints = |service: &Arc<Service>| {
        let mut service = Service::clone(service);
        service.ports.iter_mut().for_each(|port| port.endpoints = Default::default());
        service
    };
    change.before.as_ref().map(without_endpoints) != change.now.as_ref().map(without_endpoints)
}
