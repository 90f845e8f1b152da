//! How many requests may pass in a time: limits that each waypoint and gateway keeps by itself.

mod bucket;

use std::fmt;
use std::sync::Arc;

use crate::LabelSet;
use crate::l7::{HeaderEdits, Percent, RequestMatch, RequestView, RuleRef};
use crate::policy::{PolicyName, PolicyTarget, Selector};
use crate::telemetry::Side;

pub use bucket::{BucketError, TokenBucket};

/// Where a limit is written, for logs, status and people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitRef {
    /// The kind of object, such as `RateLimitPolicy`.
    pub kind: &'static str,
    /// The object.
    pub object: Arc<PolicyName>,
    /// Its place among the object's limits, from 0.
    pub index: usize,
}

impl fmt::Display for LimitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} limit {}", self.kind, self.object, self.index)
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Where it is written.
    pub at: LimitRef,
    /// At which side: gateways (client) or waypoints (server); none for both.
    pub side: Option<Side>,
    /// The requests that it is about.
    pub only: Only,
    /// Of these, those that it judges at all.
    pub enabled: Percent,
    /// Of those that find no token, those that are refused.
    pub enforced: Percent,
    /// Who has a bucket of their own.
    pub key: LimitKey,
    /// The bucket.
    pub bucket: TokenBucket,
    /// What who is refused is told.
    pub answer: LimitAnswer,
}

/// Which requests a limit is about: all that is given has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    /// Any of these; none for all.
    pub matches: Vec<RequestMatch>,
    /// Those for that host.
    pub host: Option<Arc<str>>,
    /// Those for that port.
    pub port: Option<u16>,
    /// Those of a route's rule of that name.
    pub rule: Option<Arc<str>>,
}

/// Who has a bucket of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKey {
    /// All share one.
    Everybody,
    /// Each value of a header field, by its name in lower case; those without the field share one.
    Header(Arc<str>),
    /// Each identity of the mesh; those without one share one.
    Principal,
    /// Each namespace of the mesh, likewise.
    Namespace,
    /// Each client's address.
    Address,
}

/// The answer to who is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitAnswer {
    /// HTTP's status.
    pub status: u16,
    /// gRPC's status, for gRPC's clients.
    pub grpc: u32,
    /// Changes to its header.
    pub headers: HeaderEdits,
}

impl LimitAnswer {
    /// HTTP's status 429 (RFC 6585, section 4).
    pub const TOO_MANY_REQUESTS: u16 = 429;
    /// gRPC's status UNAVAILABLE, which Envoy answers.
    pub const UNAVAILABLE: u32 = 14;
    /// gRPC's status RESOURCE_EXHAUSTED.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
}

/// The limits of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitPolicy {
    /// Its name.
    pub name: Arc<PolicyName>,
    /// What it is for.
    pub scope: LimitScope,
    /// Its limits.
    pub limits: Vec<Arc<RateLimit>>,
    /// Of its limits, only the first that is about a request judges it, as the nearest of Envoy's settings does.
    pub first_only: bool,
}

/// What limits are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitScope {
    /// All of its namespace; of the root namespace's, all of the mesh.
    Namespace,
    /// Workloads of its namespace, or of any if it is the root namespace.
    Workloads(Selector),
    /// What goes by waypoints or gateways, and what belongs to routes.
    Targets(Vec<LimitTarget>),
}

/// What limits are attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitTarget {
    /// All requests there.
    Place(PolicyTarget),
    /// Requests of a route, wherever it is attached.
    Route {
        /// The route's kind.
        kind: &'static str,
        /// The route.
        name: Arc<PolicyName>,
        /// Of its rules the one of that name.
        rule: Option<Arc<str>>,
    },
}

/// A limit, as it is in force somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The limit.
    pub limit: Arc<RateLimit>,
    /// The policy that it is of.
    pub policy: Arc<RateLimitPolicy>,
    /// Whether only requests of the policy's routes are its business.
    pub of_routes: bool,
}

/// Where requests are judged, and for whom.
pub struct Seat<'a> {
    /// As which side.
    pub side: Side,
    /// The Gateway's namespace, name and class.
    pub gateway: (&'a str, &'a str, &'a str),
    /// The labels of its pod, where known.
    pub labels: Option<&'a LabelSet>,
    /// The Service or ServiceEntry that is asked for.
    pub service: Option<&'a PolicyTarget>,
    /// The labels of the workloads behind it, where it is one of the mesh.
    pub behind: &'a [&'a LabelSet],
}

/// All limits, the oldest policy first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimits {
    root_namespace: Arc<str>,
    all: Vec<Arc<RateLimitPolicy>>,
}

impl RateLimits {
    /// Of these, the oldest first.
    #[must_use]
    pub fn new(root_namespace: Arc<str>, all: Vec<Arc<RateLimitPolicy>>) -> Self {
        Self { root_namespace, all }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<RateLimitPolicy>] {
        &self.all
    }

    /// The limits that judge requests there, in the order of their policies.
    #[must_use]
    pub fn at(&self, seat: &Seat<'_>) -> Vec<Applied> {
        let mut applied = Vec::new();
        for policy in &self.all {
            let Some(of_routes) = self.reaches(policy, seat) else { continue };
            let here = policy.limits.iter().filter(|limit| limit.side.is_none_or(|side| side == seat.side));
            let placed = |limit: &Arc<RateLimit>| Applied { limit: limit.clone(), policy: policy.clone(), of_routes };
            applied.extend(here.map(placed));
        }
        applied
    }

    /// Whether a policy judges requests there: none if not, and else whether those of its routes alone.
    fn reaches(&self, policy: &RateLimitPolicy, seat: &Seat<'_>) -> Option<bool> {
        let (namespace, name, class) = seat.gateway;
        let from = &*policy.name.namespace;
        let is_root = *from == *self.root_namespace;
        let asked_in = |wanted: &str| match seat.service {
            Some(PolicyTarget::Service(service) | PolicyTarget::ServiceEntry(service)) => *service.namespace == *wanted,
            _ => false,
        };
        let here = match &policy.scope {
            LimitScope::Namespace => is_root || from == namespace || asked_in(from),
            LimitScope::Workloads(selector) => {
                let own = seat.labels.is_some_and(|labels| selector.selects(labels));
                let of_service = !seat.behind.is_empty() && seat.behind.iter().all(|labels| selector.selects(labels));
                (is_root || from == namespace) && own || (is_root || asked_in(from)) && of_service
            }
            LimitScope::Targets(targets) => {
                let place = |target: &LimitTarget| match target {
                    LimitTarget::Place(PolicyTarget::Gateway(gateway)) => {
                        *gateway.namespace == *namespace && *gateway.name == *name
                    }
                    LimitTarget::Place(PolicyTarget::GatewayClass(wanted)) => is_root && **wanted == *class,
                    LimitTarget::Place(target) => seat.service == Some(target),
                    LimitTarget::Route { .. } => false,
                };
                if !targets.iter().any(place) {
                    return targets.iter().any(LimitTarget::is_route).then_some(true);
                }
                true
            }
        };
        here.then_some(false)
    }
}

impl LimitTarget {
    /// Whether it is a route.
    #[must_use]
    pub const fn is_route(&self) -> bool {
        matches!(self, Self::Route { .. })
    }

    fn names(&self, rule: &RuleRef) -> bool {
        let Self::Route { kind, name, rule: wanted } = self else { return false };
        let is_route = rule.kind == *kind && rule.namespace == name.namespace && rule.object == name.name;
        is_route && wanted.as_ref().is_none_or(|wanted| rule.name.as_ref() == Some(wanted))
    }
}

/// Goes through the limits of a place for one request, and says which of them judge it.
#[derive(Debug, Default)]
pub struct Judging<'a> {
    last: Option<&'a Arc<RateLimitPolicy>>,
}

impl<'a> Judging<'a> {
    /// Whether the next limit in their order judges the request, by the rule that it belongs to.
    pub fn next(&mut self, applied: &'a Applied, request: &dyn RequestView, rule: Option<&RuleRef>) -> bool {
        let again = self.last.is_some_and(|last| Arc::ptr_eq(last, &applied.policy));
        if again && applied.policy.first_only || !applied.is_about(request, rule) {
            return false;
        }
        self.last = Some(&applied.policy);
        true
    }
}

impl Applied {
    /// Whether a request is the limit's business, by the rule that it belongs to.
    #[must_use]
    pub fn is_about(&self, request: &dyn RequestView, rule: Option<&RuleRef>) -> bool {
        if self.of_routes {
            let LimitScope::Targets(targets) = &self.policy.scope else { return false };
            if !rule.is_some_and(|rule| targets.iter().any(|target| target.names(rule))) {
                return false;
            }
        }
        let only = &self.limit.only;
        only.port.is_none_or(|port| port == request.port())
            && only.host.as_ref().is_none_or(|host| **host == *request.host())
            && only.rule.as_ref().is_none_or(|wanted| rule.is_some_and(|rule| rule.name.as_ref() == Some(wanted)))
            && (only.matches.is_empty() || only.matches.iter().any(|matched| matched.matches(request)))
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bucket.fmt(f)?;
        match &self.key {
            LimitKey::Everybody => {}
            LimitKey::Header(name) => write!(f, ", each {name}")?,
            LimitKey::Principal => f.write_str(", each principal")?,
            LimitKey::Namespace => f.write_str(", each namespace")?,
            LimitKey::Address => f.write_str(", each address")?,
        }
        let Only { matches, host, port, rule } = &self.only;
        if let Some(host) = host {
            write!(f, ", host {host}")?;
        }
        if let Some(port) = port {
            write!(f, ", port {port}")?;
        }
        if let Some(rule) = rule {
            write!(f, ", rule {rule}")?;
        }
        if !matches.is_empty() {
            let matches: Vec<_> = matches.iter().map(ToString::to_string).collect();
            write!(f, ", of {}", matches.join(" or "))?;
        }
        if self.enforced == Percent::ALL { Ok(()) } else { write!(f, ", {}% enforced", self.enforced.as_f64()) }
    }
}
