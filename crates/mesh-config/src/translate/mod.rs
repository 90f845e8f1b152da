//! Objects to the model. Pure, and never fails as a whole: what cannot be used is left out, with a finding.

mod attached_routes;
mod destination_rules;
mod endpoints;
mod guards;
mod label_interner;
mod pods;
mod policies;
mod services;
mod virtual_services;
mod waypoints;

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use mesh_core::{Protocol, Snapshot};

use crate::config::Options;
use crate::finding::Finding;
use crate::object::ObjectSet;

/// Translates a set of objects. The same objects give the same snapshot and findings, in the same order.
#[must_use]
pub fn translate(objects: &ObjectSet, options: &Options) -> (Snapshot, Vec<Finding>) {
    let mut findings = Vec::new();
    let workloads = pods::workloads(objects, options, &mut findings);
    let mut endpoints = endpoints::collect(objects, &workloads, &mut findings);
    let services = services::services(objects, options, &mut endpoints, &mut findings);
    endpoints.report_unmatched(objects, &mut findings);
    let policies = policies::policies(objects, options, &services, &mut findings);
    let l7 = waypoints::waypoints(objects, options, &workloads.all, &services, &mut findings);
    waypoints::report_missing(objects, &services, &policies, &l7, &mut findings);
    let l7 = guards::guards(l7, objects, &policies, &services, &workloads.all, &mut findings);
    let routes = virtual_services::routes(objects, options, &services, &policies, &l7, &mut findings);
    let attached = attached_routes::routes(objects, &services, &l7, &routes, &mut findings);
    let l7 = l7.with_routes(routes.into_iter().chain(attached).collect());
    findings.sort();
    (Snapshot::build(workloads.all, services).with_policies(policies).with_l7(l7), findings)
}

/// Reads an address that a connection can be made to.
fn unicast(text: &str) -> Result<IpAddr, String> {
    let address = IpAddr::from_str(text).map_err(|_| format!("{text:?} is no IP address"))?.to_canonical();
    let usable = match address {
        IpAddr::V4(v4) => v4 != Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    if !usable || address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return Err(format!("{text} is no unicast address of one host"));
    }
    Ok(address)
}

/// Reads a port number.
pub(crate) fn port_number(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{number} is no port number")),
    }
}

/// Reads a protocol; TCP is the default.
fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{other:?} is no protocol")),
    }
}
