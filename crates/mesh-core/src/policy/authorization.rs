//! AuthorizationPolicies, as one connection can be judged by them.

use std::sync::Arc;

use super::index::Scoped;
use super::request::RequestTest;
use super::{IpBlocks, Patterns, PolicyName, Scope, Selector};

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The workloads that it is about; none for all in its namespace, or from the root namespace in the mesh.
    pub selector: Option<Selector>,
    /// What becomes of a connection that a rule matches.
    pub action: Action,
    /// The authorizer that decides where the action is CUSTOM, by its name among [`crate::Providers`].
    pub provider: Option<Arc<str>>,
    /// Whether it is only reported what it would do (`istio.io/dry-run`).
    pub dry_run: bool,
    /// Its rules, of which one has to match. Without rules it matches nothing.
    pub rules: Vec<Rule>,
}

impl AuthorizationPolicy {
    /// How far it reaches.
    #[must_use]
    pub fn scope(&self, root_namespace: &str) -> Scope {
        Scope::of(&self.name.namespace, root_namespace, self.selector.as_ref())
    }
}

impl Scoped for AuthorizationPolicy {
    fn namespace(&self) -> &Arc<str> {
        &self.name.namespace
    }

    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }
}

/// What becomes of a connection that a policy matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// An external authorizer decides on a request, before anything else does. None can be asked about a connection: it is
    /// refused.
    Custom,
    /// It is refused.
    Deny,
    /// It is allowed; and once a workload has such a policy, what none of them matches is refused.
    Allow,
    /// It is reported.
    Audit,
}

impl Action {
    /// As Istio writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Custom => "CUSTOM",
            Self::Deny => "DENY",
            Self::Allow => "ALLOW",
            Self::Audit => "AUDIT",
        }
    }
}

/// One rule: one of `from`, one of `to`, and all of `when` have to hold. An empty list holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Who connects: alternatives.
    pub from: Vec<Clause>,
    /// To what: alternatives.
    pub to: Vec<Clause>,
    /// Further conditions.
    pub when: Clause,
    /// Fields that ask for what only a request shows, such as `to[0].operation.methods`. Where nobody reads requests, a
    /// rule with one that allows never matches, and every other matches by what is left of it: so that missing knowledge
    /// refuses.
    pub needs_request: Vec<Box<str>>,
}

impl Rule {
    /// Whether the server's name is all that it asks for of a request, which a connection of TLS shows as well.
    pub(super) fn asks_of_server_alone(&self) -> bool {
        let mut terms = self.from.iter().chain(&self.to).chain([&self.when]).flatten();
        terms.all(|term| !matches!(&term.test, Test::Request(test) if !matches!(test, RequestTest::Sni(_))))
    }
}

/// Conditions that have to hold together. Without any it holds.
pub type Clause = Vec<Term>;

/// One condition of a clause: a field of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Whether it holds when the test fails: the `not` fields.
    pub negated: bool,
    /// What is tested.
    pub test: Test,
}

/// A fact and the values that it may have. What rests on an identity fails where none was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The identity, without `spiffe://`.
    Principal(Patterns),
    /// The identity's namespace.
    Namespace(Patterns),
    /// The identity's namespace and service account.
    ServiceAccount(ServiceAccounts),
    /// The address that the connection comes from.
    SourceIp(IpBlocks),
    /// The client's address. With nobody to tell of another client, it is where the connection comes from.
    RemoteIp(IpBlocks),
    /// The workload's own address that the connection goes to.
    DestinationIp(IpBlocks),
    /// The workload's own port, in ascending order.
    DestinationPort(Box<[u16]>),
    /// Something of a request.
    Request(RequestTest),
}

impl Test {
    /// The key of the fact, as `when` writes it.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Principal(_) => "source.principal",
            Self::Namespace(_) => "source.namespace",
            Self::ServiceAccount(_) => "source.serviceAccount",
            Self::SourceIp(_) => "source.ip",
            Self::RemoteIp(_) => "remote.ip",
            Self::DestinationIp(_) => "destination.ip",
            Self::DestinationPort(_) => "destination.port",
            Self::Request(test) => test.key(),
        }
    }
}

/// Service accounts, each with its namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceAccounts(Box<[(Box<str>, Box<str>)]>);

impl ServiceAccounts {
    /// Whether the account is one of them.
    #[must_use]
    pub fn contain(&self, namespace: &str, account: &str) -> bool {
        self.0.binary_search_by(|(n, a)| (&**n, &**a).cmp(&(namespace, account))).is_ok()
    }

    /// All of them: namespaces and names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(namespace, account)| (&**namespace, &**account))
    }
}

/// Of pairs of namespace and account.
impl FromIterator<(Box<str>, Box<str>)> for ServiceAccounts {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Box<str>)>>(accounts: I) -> Self {
        let mut accounts: Vec<_> = accounts.into_iter().collect();
        accounts.sort();
        accounts.dedup();
        Self(accounts.into())
    }
}
