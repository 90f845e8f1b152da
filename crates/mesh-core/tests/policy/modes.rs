//! Which mode a workload's port has, and by whose word.
use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::policy::{Level, Mode, PeerAuthentication, ROOT_NAMESPACE, Selector, effective_mode};
use mesh_core::{Policies, PolicyName, Service, Snapshot};

use crate::cart;

/// A policy of that namespace; `label` is the app that it selects.
fn policy(
    name: &str,
    namespace: &str,
    label: Option<&str>,
    mode: Option<Mode>,
    ports: &[(u16, Option<Mode>)],
) -> Arc<PeerAuthentication> {
    Arc::new(PeerAuthentication {
        name: Arc::new(PolicyName { namespace: namespace.into(), name: name.into() }),
        selector: label.and_then(|app| Selector::new([("app", app)])),
        mode,
        ports: ports.iter().copied().collect::<BTreeMap<_, _>>(),
    })
}

/// The mode of port 80, the level that decided and the policy's name.
fn mode(policies: Vec<Arc<PeerAuthentication>>) -> (Mode, Level, Option<String>) {
    let policies = Policies::build(ROOT_NAMESPACE.into(), Vec::new(), policies, Vec::new());
    let snapshot = Snapshot::build([cart()], Vec::<Service>::new()).with_policies(policies);
    let found = effective_mode(&snapshot, &cart(), 80);
    (found.mode, found.level, found.policy.map(|name| name.to_string()))
}

#[test]
fn the_narrowest_level_decides() {
    use Mode::{Disable, Permissive, Strict};
    let mesh = || policy("mesh", ROOT_NAMESPACE, None, Some(Strict), &[]);
    let namespace = || policy("namespace", "shop", None, Some(Permissive), &[]);
    let workload = || policy("workload", "shop", Some("cart"), Some(Strict), &[]);
    let port = || policy("port", "shop", Some("cart"), Some(Strict), &[(80, Some(Disable))]);
    let cases = [
        (vec![], (Permissive, Level::Default, None)),
        (vec![mesh()], (Strict, Level::Mesh, Some("istio-system/mesh"))),
        (vec![mesh(), namespace()], (Permissive, Level::Namespace, Some("shop/namespace"))),
        (vec![mesh(), namespace(), workload()], (Strict, Level::Workload, Some("shop/workload"))),
        (vec![workload(), namespace(), mesh()], (Strict, Level::Workload, Some("shop/workload"))),
        (vec![mesh(), namespace(), port()], (Disable, Level::Port, Some("shop/port"))),
    ];
    for (policies, (expected, level, name)) in cases {
        assert_eq!(mode(policies), (expected, level, name.map(str::to_owned)));
    }
}

#[test]
fn what_is_unset_is_left_to_the_next_wider_level() {
    let mesh = || policy("mesh", ROOT_NAMESPACE, None, Some(Mode::Strict), &[]);
    let unset = [
        policy("namespace", "shop", None, None, &[]),
        policy("workload", "shop", Some("cart"), None, &[]),
        policy("port", "shop", Some("cart"), None, &[(80, None)]),
    ];
    for policy in unset {
        let decided = (Mode::Strict, Level::Mesh, Some("istio-system/mesh".to_owned()));
        assert_eq!(mode(vec![policy, mesh()]), decided);
    }
    let of_another_port = policy("port", "shop", Some("cart"), Some(Mode::Strict), &[(81, Some(Mode::Disable))]);
    assert_eq!(mode(vec![of_another_port]).1, Level::Workload);
}

#[test]
fn others_policies_say_nothing_and_among_equals_the_oldest_decides() {
    let of_others = [
        policy("elsewhere", "bank", None, Some(Mode::Strict), &[]),
        policy("other", "shop", Some("web"), Some(Mode::Strict), &[]),
        policy("selecting", ROOT_NAMESPACE, Some("cart"), Some(Mode::Strict), &[]),
    ];
    assert_eq!(mode(of_others.into()), (Mode::Permissive, Level::Default, None));
    let older = policy("older", "shop", None, Some(Mode::Strict), &[]);
    let younger = policy("younger", "shop", None, Some(Mode::Disable), &[]);
    assert_eq!(mode(vec![older, younger]).2.as_deref(), Some("shop/older"));
}
