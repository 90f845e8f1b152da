//! Policies and connections as people write them, and what they are in the model.
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::policy::{
    Action, Authorization, AuthorizationPolicy, Facts, IpBlock, Mode, Pattern, Patterns, Peer, PeerAuthentication,
    ROOT_NAMESPACE, Rule, Selector, Term, Test, authorize, explain,
};
use mesh_core::{Policies, PolicyName, Service, Snapshot, SpiffeId, TrustDomain};

use crate::cart;

/// A field of a rule, with its values as a manifest has them.
#[derive(Clone, Debug)]
pub struct Field {
    pub not: bool,
    pub key: &'static str,
    pub values: Vec<&'static str>,
}

#[derive(Clone, Debug, Default)]
pub struct WrittenRule {
    pub from: Vec<Vec<Field>>,
    pub to: Vec<Vec<Field>>,
    pub when: Vec<Field>,
    /// Whether it has a field that only a request shows.
    pub needs_request: bool,
}

#[derive(Clone, Debug)]
pub struct Written {
    pub namespace: &'static str,
    pub selector: Option<(&'static str, &'static str)>,
    pub action: Action,
    pub dry_run: bool,
    pub rules: Vec<WrittenRule>,
}

/// A connection into `shop/cart`.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Namespace and account; none for plaintext.
    pub identity: Option<(&'static str, &'static str)>,
    pub by_kernel: bool,
    pub client: &'static str,
    pub destination: &'static str,
    pub port: u16,
}

fn patterns(values: &[&str]) -> Patterns {
    values.iter().map(|value| Pattern::parse(value).unwrap()).collect()
}

fn term(field: &Field) -> Term {
    let values = &field.values;
    let blocks = || values.iter().map(|value| value.parse::<IpBlock>().unwrap()).collect();
    let test = match field.key {
        "source.principal" => Test::Principal(patterns(values)),
        "source.namespace" => Test::Namespace(patterns(values)),
        "source.serviceAccount" => Test::ServiceAccount(
            values.iter().map(|value| value.split_once('/').map(|(ns, sa)| (ns.into(), sa.into())).unwrap()).collect(),
        ),
        "source.ip" => Test::SourceIp(blocks()),
        "remote.ip" => Test::RemoteIp(blocks()),
        "destination.ip" => Test::DestinationIp(blocks()),
        _ => {
            let mut ports: Vec<u16> = values.iter().map(|value| value.parse().unwrap()).collect();
            ports.sort_unstable();
            Test::DestinationPort(ports.into())
        }
    };
    Term { negated: field.not, test }
}

fn translate(index: usize, written: &Written) -> Arc<AuthorizationPolicy> {
    let clause = |fields: &Vec<Field>| fields.iter().map(term).collect();
    let rules = written.rules.iter().map(|rule| Rule {
        from: rule.from.iter().map(clause).collect(),
        to: rule.to.iter().map(clause).collect(),
        when: clause(&rule.when),
        needs_request: rule.needs_request.then(|| "to[0].operation.methods".into()).into_iter().collect(),
    });
    Arc::new(AuthorizationPolicy {
        name: Arc::new(PolicyName { namespace: written.namespace.into(), name: format!("policy-{index}").into() }),
        selector: written.selector.and_then(|label| Selector::new([label])),
        action: written.action,
        provider: (written.action == Action::Custom).then(|| "opa".into()),
        dry_run: written.dry_run,
        rules: rules.collect(),
    })
}

pub fn snapshot(policies: &[Written], strict: bool) -> Snapshot {
    let strict = strict.then(|| {
        let name = Arc::new(PolicyName { namespace: ROOT_NAMESPACE.into(), name: "default".into() });
        Arc::new(PeerAuthentication { name, selector: None, mode: Some(Mode::Strict), ports: Default::default() })
    });
    let authorization = policies.iter().enumerate().map(|(index, policy)| translate(index, policy)).collect();
    let policies = Policies::build(ROOT_NAMESPACE.into(), authorization, strict.into_iter().collect(), Vec::new());
    Snapshot::build([cart()], Vec::<Service>::new()).with_policies(policies)
}

/// What is decided on a connection into [`cart`]; what explains says the same.
pub fn decided(snapshot: &Snapshot, connection: &Connection) -> Authorization {
    let identity = connection.identity.map(|(ns, sa)| SpiffeId::new(&TrustDomain::default(), ns, sa).unwrap());
    let peer = match &identity {
        None => Peer::Unproven,
        Some(identity) if connection.by_kernel => Peer::Kernel(identity),
        Some(identity) => Peer::Certificate(identity),
    };
    let destination = SocketAddr::new(connection.destination.parse().unwrap(), connection.port);
    let facts = Facts { peer, client: connection.client.parse().unwrap(), forwarded: None, server: None, destination };
    let decided = authorize(snapshot, &cart(), &facts);
    assert_eq!(explain(snapshot, &cart(), &facts).authorization, decided, "what explains is what decides");
    decided
}
