//! Every folder under fixtures/ is a directory of manifests, with the findings that it gives (findings.txt) and, where
//! that matters, the model (model.txt). `UPDATE_FIXTURES=1` writes what is found; read the difference before you keep it.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_config::{Code, Credentials, Options, Severity, load};
use mesh_core::l7::TrafficRule;
use mesh_core::l7::gateway::Serves;
use mesh_core::locality::{LocalitySetting, Placement};
use mesh_core::policy::{AuthorizationPolicy, Clause, ClientTlsRule, PeerAuthentication, Rule, Selector};
use mesh_core::{Entry, Policies, Service, Snapshot, Template, Unwatched, Workload};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// Compares with the file's text, or writes it; what differs, if anything.
fn compare(file: &Path, found: &str) -> Option<String> {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(file, found).unwrap();
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    (expected != found).then(|| format!("{}\n--- expected\n{expected}--- found\n{found}", file.display()))
}

fn check(case: &Path) -> Vec<String> {
    let config = load(case, &Options { credentials: Credentials::Everybodys, ..Options::default() }).unwrap();
    let mut findings = String::new();
    for finding in config.findings.iter() {
        writeln!(findings, "{finding}").unwrap();
    }
    let mut differences = Vec::from_iter(compare(&case.join("findings.txt"), &findings));
    let model = case.join("model.txt");
    if model.exists() {
        differences.extend(compare(&model, &describe(&config.snapshot)));
    }
    differences
}

fn describe(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    snapshot.workloads().for_each(|workload| describe_workload(workload, &mut text));
    snapshot.services().for_each(|service| describe_service(service, &mut text));
    describe_policies(snapshot.policies(), &mut text);
    describe_authentication(snapshot.policies(), &mut text);
    snapshot.providers().iter().for_each(|(name, it)| writeln!(text, "provider {name} {it:#?}").unwrap());
    describe_waypoints(snapshot, &mut text);
    describe_routes(snapshot, &mut text);
    describe_gateways(snapshot, &mut text);
    describe_telemetries(snapshot, &mut text);
    describe_limits(snapshot, &mut text);
    text
}

fn describe_routes(snapshot: &Snapshot, text: &mut String) {
    for routes in snapshot.l7().routes() {
        writeln!(text, "routes {} port {:?} for {:?}", routes.hostname, routes.port, routes.clients).unwrap();
        for rule in routes.table.hosts().iter().flat_map(|hosts| &hosts.rules) {
            writeln!(text, "  {}: {:?}", rule.at, rule.action).unwrap();
            rule.matches.iter().for_each(|matched| writeln!(text, "    {matched:?}").unwrap());
            writeln!(text, "    {:?} {:?} {:?}", rule.fault, rule.retry, rule.timeouts).unwrap();
            writeln!(text, "    {:?} {:?} {:?}", rule.request_headers, rule.response_headers, rule.rewrite).unwrap();
            writeln!(text, "    {:?} {:?}", rule.mirrors, rule.cors).unwrap();
        }
    }
}

fn describe_telemetries(snapshot: &Snapshot, text: &mut String) {
    for policy in snapshot.telemetries().all() {
        writeln!(text, "telemetry {} for {:?}", policy.name, policy.scope).unwrap();
        policy.logging.iter().for_each(|logging| writeln!(text, "  {logging:?}").unwrap());
        policy.tracing.iter().for_each(|tracing| writeln!(text, "  {tracing:?}").unwrap());
    }
}

fn describe_limits(snapshot: &Snapshot, text: &mut String) {
    for policy in snapshot.rate_limits().all() {
        writeln!(text, "limits of {} on {:?}", policy.name, policy.scope).unwrap();
        for limit in &policy.limits {
            writeln!(text, "  {} at {:?}: {limit}", limit.at, limit.side).unwrap();
            writeln!(text, "    {:?} {:?} {:?}", limit.enabled, limit.enforced, limit.answer).unwrap();
        }
    }
}

fn describe_gateways(snapshot: &Snapshot, text: &mut String) {
    for gateway in snapshot.l7().gateways() {
        writeln!(text, "gateway {}/{} of {:?}", gateway.namespace, gateway.name, gateway.pods).unwrap();
        for listener in &gateway.listeners {
            writeln!(text, "  {} at {} for {:?}, {:?}", listener.name, listener.port, listener.hosts, listener.tls)
                .unwrap();
            match &listener.serves {
                Serves::Requests { table, to_https } => {
                    for hosts in table.hosts() {
                        let rules: Vec<_> = hosts.rules.iter().map(|rule| rule.at.to_string()).collect();
                        writeln!(text, "    {:?} {:?}: {}", hosts.hosts, hosts.precedence, rules.join(", ")).unwrap();
                        let actions = hosts.rules.iter().map(|rule| &rule.action);
                        actions.for_each(|action| writeln!(text, "      {action:?}").unwrap());
                    }
                    writeln!(text, "    to https: {to_https}").unwrap();
                }
                Serves::Connections(routes) => {
                    for route in routes {
                        writeln!(text, "    {} for {:?}: {:?}", route.at, route.hosts, route.backends).unwrap();
                    }
                }
            }
        }
    }
}

fn describe_waypoints(snapshot: &Snapshot, text: &mut String) {
    let l7 = snapshot.l7();
    for waypoint in l7.waypoints() {
        writeln!(text, "waypoint {waypoint} serves {:?}", waypoint.serves).unwrap();
    }
    for service in snapshot.services() {
        if let Some(waypoint) = l7.waypoint_of(service) {
            writeln!(text, "  {} by {waypoint}", service.hostname).unwrap();
        }
        for said in l7.backend_tls_of(&service.hostname) {
            writeln!(text, "tls to {} {:?} by {}: {:?}", service.hostname, said.port, said.name, said.tls).unwrap();
        }
    }
    for workload in snapshot.workloads() {
        if let Some(waypoint) = l7.waypoint_of_workload(workload) {
            writeln!(text, "  workload {}/{} by {waypoint}", workload.namespace, workload.name).unwrap();
        }
    }
}

fn describe_policies(policies: &Policies, text: &mut String) {
    let of = |selector: Option<&Selector>| selector.map_or_else(|| "all".to_owned(), ToString::to_string);
    if *policies.locality() != LocalitySetting::default() {
        writeln!(text, "localities {:?}", policies.locality()).unwrap();
    }
    for policy in policies.authorization() {
        let AuthorizationPolicy { name, selector, action, provider, dry_run, rules } = &**policy;
        let by = provider.as_ref().map_or_else(String::new, |provider| format!(" by {provider}"));
        writeln!(text, "authorization {name} {action:?}{by} dry_run={dry_run} for {}", of(selector.as_ref())).unwrap();
        for Rule { from, to, when, needs_request } in rules {
            writeln!(text, "  rule, needs of a request {needs_request:?}").unwrap();
            from.iter().for_each(|clause| writeln!(text, "    from {}", describe_clause(clause)).unwrap());
            to.iter().for_each(|clause| writeln!(text, "    to {}", describe_clause(clause)).unwrap());
            writeln!(text, "    when {}", describe_clause(when)).unwrap();
        }
    }
    for policy in policies.peer_authentication() {
        let PeerAuthentication { name, selector, mode, ports } = &**policy;
        writeln!(text, "peers {name} {mode:?} {ports:?} for {}", of(selector.as_ref())).unwrap();
    }
    for rule in policies.client_tls() {
        let ClientTlsRule { name, host, exported_to, clients, tls, ports, traffic } = &**rule;
        writeln!(text, "client tls {name} {host:?} {tls:?} {ports:?}").unwrap();
        writeln!(text, "  for {exported_to:?}, {}", of(clients.as_ref())).unwrap();
        if **traffic != TrafficRule::default() {
            writeln!(text, "  {traffic:?}").unwrap();
        }
    }
}

fn describe_authentication(policies: &Policies, text: &mut String) {
    for targeted in policies.targeted_authentication() {
        writeln!(text, "tokens {} at {:?}", targeted.policy.name, targeted.targets).unwrap();
        targeted.policy.rules.iter().for_each(|rule| writeln!(text, "  {rule:?}").unwrap());
    }
}

fn describe_clause(clause: &Clause) -> String {
    let terms = clause.iter().map(|term| format!("{}{:?}", if term.negated { "not " } else { "" }, term.test));
    terms.collect::<Vec<_>>().join(", ")
}

fn describe_workload(workload: &Workload, text: &mut String) {
    let Workload { uid, name, node, addresses, ready, template, .. } = workload;
    let Template { namespace, identity, enrolment, .. } = &**template;
    writeln!(text, "workload {namespace}/{name} uid={uid} node={node} {identity}").unwrap();
    writeln!(text, "  {addresses:?} {enrolment:?} ready={ready}").unwrap();
    let Template { workload_name, canonical_service, canonical_revision, app, version, .. } = &**template;
    writeln!(text, "  of {workload_name}, {canonical_service}@{canonical_revision}, app={app} version={version}")
        .unwrap();
    if !workload.locality.is_unknown() {
        writeln!(text, "  in {}", workload.locality).unwrap();
    }
    if !workload.probe_ports.is_empty() {
        writeln!(text, "  probed at {:?}", workload.probe_ports).unwrap();
    }
    if workload.unwatched != Unwatched::Nowhere {
        writeln!(text, "  requests not looked for: {:?}", workload.unwatched).unwrap();
    }
}

fn describe_service(service: &Service, text: &mut String) {
    writeln!(text, "service {} {:?}", service.hostname, service.vips).unwrap();
    if service.placement != Placement::default() {
        writeln!(text, "  {:?}", service.placement).unwrap();
    }
    if let Some(entry) = &service.entry {
        let Entry { object, resolution, names, exported_to, subject_alt_names, may_be_told } = &**entry;
        writeln!(text, "  of ServiceEntry {object} {resolution:?}").unwrap();
        writeln!(text, "  for {exported_to:?}, certificates of {subject_alt_names:?}").unwrap();
        if !may_be_told {
            writeln!(text, "  not to be told").unwrap();
        }
        for name in names {
            writeln!(text, "  {} by {}:{} {:?}", name.of_port, name.name, name.port, name.traits).unwrap();
        }
    }
    for port in &service.ports {
        let name = port.name.as_deref().unwrap_or("-");
        writeln!(text, "  {name} {}/{}", port.port, port.protocol).unwrap();
        for endpoint in &port.endpoints {
            let workload = endpoint.workload.as_ref().map_or("-", |w| &w.name);
            writeln!(text, "    {} {workload}", endpoint.address).unwrap();
            if let Some(traits) = &endpoint.traits {
                writeln!(text, "      {traits:?}").unwrap();
            }
        }
    }
}

#[test]
fn fixtures_give_the_findings_and_models_beside_them() {
    let cases = cases();
    assert!(cases.len() > 10, "fixtures are missing from {}", folder().display());
    let differences: Vec<String> = cases.iter().flat_map(|case| check(case)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_code_that_a_manifest_can_cause_has_a_fixture() {
    // These need sizes or permissions or an earlier version of a file; other tests have them.
    let elsewhere =
        [Code::Unreadable, Code::FileTooLarge, Code::TooManyDocuments, Code::DirectoryTooLarge, Code::LastGood];
    let files = cases().into_iter().map(|case| case.join("findings.txt"));
    let seen: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let unseen: Vec<&Code> =
        Code::ALL.iter().filter(|code| !elsewhere.contains(code) && !seen.contains(code.id())).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn istio_examples_have_no_errors_and_are_in_force() {
    let config = load(&folder().join("istio-examples"), &Options::default()).unwrap();
    let errors: Vec<_> = config.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let said = |code: Code| config.findings.iter().filter(|finding| finding.code == code).count();
    assert_eq!(said(Code::NotEnforced) + said(Code::FieldNotHonoured), 0, "everything in them is in force");
    assert!(said(Code::RouteOfNoService) > 0, "most of the examples have no Services");
}
