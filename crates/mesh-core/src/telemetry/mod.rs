//! What is told of requests, and where: Istio's Telemetry (istio.io, reference/config/telemetry), from the mesh down to a workload.

mod choice;
pub mod expression;
pub mod filter;
pub mod line_format;
pub mod metrics;
pub mod value;
mod value_expression;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::LabelSet;
use crate::l7::Percent;
use crate::policy::{PolicyName, PolicyTarget, Selector};

pub use choice::Choice;
pub use expression::{ExpressionError, parse};
pub use filter::Filter;
pub use line_format::LineFormat;
pub use metrics::{EffectiveMetrics, Metric, MetricChange, MetricChanges, MetricOverride, TagChange};
pub use value::Value;
pub use value_expression::parse_value;

/// One Telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryPolicy {
    /// Its name.
    pub name: Arc<PolicyName>,
    /// What it is for.
    pub scope: Scope,
    /// Which requests are logged; the last word counts.
    pub logging: Vec<Logging>,
    /// Which requests are traced, and how; the last word counts.
    pub tracing: Vec<Tracing>,
    /// Which metrics are told, and with which labels; the last word counts.
    pub metrics: Vec<MetricOverride>,
}

/// What a Telemetry is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything about which no other says anything: what the mesh configuration asks for.
    Mesh,
    /// All of its namespace; of the root namespace's, all of the mesh.
    Namespace,
    /// Workloads of its namespace.
    Workloads(Selector),
    /// What goes by waypoints or gateways.
    Targets(Vec<PolicyTarget>),
}

/// The provider of logs that writes to standard output.
pub const STANDARD_OUTPUT: &str = "envoy";

/// As which side a proxy logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Of what leaves: gateways.
    Client,
    /// Of what comes: waypoints.
    Server,
}

/// An entry about logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Of one side; none for both.
    pub side: Option<Side>,
    /// Whom lines go to, by providers' names, of which [`STANDARD_OUTPUT`] is one; none for those of the levels above, or standard
    /// output.
    pub providers: Vec<Arc<str>>,
    /// No lines.
    pub disabled: bool,
    /// The requests that lines are about.
    pub choice: Choice,
}

/// An entry about traces. What is not said is as above.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracing {
    /// Of one side; none for both.
    pub side: Option<Side>,
    /// The provider that spans go to; the one of the programs' flags where none is named.
    pub provider: Option<Arc<str>>,
    /// No spans; what a request says of its trace goes on all the same.
    pub disabled: Option<bool>,
    /// Of the traces that begin here, those that are recorded.
    pub sampling: Option<Percent>,
    /// What spans are told besides.
    pub tags: Option<BTreeMap<Arc<str>, Tag>>,
}

/// The value of an attribute that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// That text.
    Literal(Arc<str>),
    /// The request's header of that name, in lower case, or else the text.
    Header(Arc<str>, Option<Arc<str>>),
    /// The proxy's environment variable, or else the text.
    Environment(Arc<str>, Option<Arc<str>>),
}

/// All of them, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telemetries {
    root_namespace: Arc<str>,
    all: Vec<Arc<TelemetryPolicy>>,
    outputs: Outputs,
}

/// The providers of logs that are standard output, by name, and how lines are written there; [`STANDARD_OUTPUT`] is one in any case.
pub type Outputs = BTreeMap<Arc<str>, Option<Arc<LineFormat>>>;

/// Who tells, and of what.
#[derive(Debug, Clone, Copy)]
pub struct TelemetryScope<'a> {
    /// As which side.
    pub side: Side,
    /// The Gateway's namespace, name and class.
    pub gateway: (&'a str, &'a str, &'a str),
    /// The labels of its pod, where known.
    pub labels: Option<&'a LabelSet>,
    /// The Service or ServiceEntry that is asked for.
    pub service: Option<&'a PolicyTarget>,
}

/// What is in force for requests of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveTelemetry {
    /// The lines at standard output; empty where there are none.
    pub outputs: Vec<Output>,
    /// Who else gets lines, by providers' names, and about which requests.
    pub log_to: Vec<(Arc<str>, Choice)>,
    /// How they are traced.
    pub tracing: Tracing,
    /// What of the standard metrics is not as by default; none where all is.
    pub metrics: Option<EffectiveMetrics>,
    /// The request headers that tags, labels of metrics, filters and formats of lines ask for.
    pub headers: Vec<Arc<str>>,
    /// The response headers that formats of lines ask for.
    pub response_headers: Vec<Arc<str>>,
}

/// Lines at standard output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Which requests and connections they are about.
    pub choice: Choice,
    /// How they are written; none as usual.
    pub format: Option<Arc<LineFormat>>,
}

impl Telemetries {
    /// Of these, the oldest first.
    #[must_use]
    pub fn new(root_namespace: Arc<str>, all: Vec<Arc<TelemetryPolicy>>) -> Self {
        Self { root_namespace, all, outputs: Outputs::new() }
    }

    /// The same, where these providers are standard output.
    #[must_use]
    pub fn with_outputs(self, outputs: Outputs) -> Self {
        Self { outputs, ..self }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Arc<TelemetryPolicy>] {
        &self.all
    }

    /// What is in force, by the oldest of each level: the mesh configuration's, the mesh's, its class's, its namespace's, its own, the Service's; each says what it
    /// says anew. Where nobody says anything there are lines.
    #[must_use]
    pub fn told(&self, teller: &TelemetryScope<'_>) -> EffectiveTelemetry {
        let mut told = EffectiveTelemetry::default();
        let mut logging = Loggings::default();
        let namespace = teller.gateway.0;
        let broad = |wanted: &str| {
            self.all.iter().find(|policy| policy.scope == Scope::Namespace && *policy.name.namespace == *wanted)
        };
        let base = self.all.iter().find(|policy| policy.scope == Scope::Mesh);
        let mesh = broad(&self.root_namespace);
        let own = broad(namespace).filter(|_| *namespace != *self.root_namespace);
        let level = |level: Level| self.all.iter().find(|policy| self.level(policy, teller) == Some(level));
        let mut metrics = EffectiveMetrics::default();
        let levels = [base, mesh, level(Level::Class), own, level(Level::Gateway), level(Level::Service)];
        for policy in levels.into_iter().flatten() {
            let of_side = policy.logging.iter().filter(|entry| entry.side.is_none_or(|side| side == teller.side));
            of_side.for_each(|entry| logging.take(entry));
            for tracing in policy.tracing.iter().filter(|entry| entry.side.is_none_or(|side| side == teller.side)) {
                told.tracing.take(tracing);
            }
            let of_side = policy.metrics.iter().filter(|entry| entry.side.is_none_or(|side| side == teller.side));
            of_side.for_each(|entry| metrics.take(entry));
        }
        logging.tell(&self.outputs, &mut told);
        let of_outputs = told.outputs.iter().map(|output| &output.choice);
        let choices = of_outputs.chain(told.log_to.iter().map(|(_, choice)| choice));
        let filters = choices.filter_map(|choice| choice.filter.as_ref());
        filters.for_each(|filter| filter.headers(&mut told.headers));
        told.headers.extend(told.tracing.tags.iter().flat_map(BTreeMap::values).filter_map(Tag::header));
        metrics.headers(&mut told.headers);
        told.metrics = Some(metrics).filter(EffectiveMetrics::changes_something);
        for format in told.outputs.iter().filter_map(|output| output.format.as_ref()) {
            format.headers(&mut told.headers, &mut told.response_headers);
        }
        for headers in [&mut told.headers, &mut told.response_headers] {
            headers.sort_unstable();
            headers.dedup();
        }
        told
    }

    /// At which level it is for them, if it is.
    fn level(&self, policy: &TelemetryPolicy, teller: &TelemetryScope<'_>) -> Option<Level> {
        let (namespace, name, class) = teller.gateway;
        let from = &*policy.name.namespace;
        match &policy.scope {
            Scope::Mesh | Scope::Namespace => None,
            Scope::Workloads(selector) => {
                let reaches = from == namespace || from == &*self.root_namespace;
                (reaches && teller.labels.is_some_and(|labels| selector.selects(labels))).then_some(Level::Gateway)
            }
            Scope::Targets(targets) => {
                let level = |target: &PolicyTarget| match target {
                    PolicyTarget::Gateway(gateway) => {
                        (*gateway.namespace == *namespace && *gateway.name == *name).then_some(Level::Gateway)
                    }
                    PolicyTarget::GatewayClass(wanted) => {
                        (**wanted == *class && from == &*self.root_namespace).then_some(Level::Class)
                    }
                    PolicyTarget::Service(_) | PolicyTarget::ServiceEntry(_) => {
                        (teller.service == Some(target)).then_some(Level::Service)
                    }
                };
                targets.iter().filter_map(level).max()
            }
        }
    }
}

/// How near a Telemetry is to who tells, below mesh and namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Class,
    Gateway,
    Service,
}

/// What is said of each provider of logs: none where there are no lines, else which requests they are about.
#[derive(Default)]
struct Loggings(BTreeMap<Arc<str>, Option<Choice>>);

impl Loggings {
    /// What `nearer` says counts: of the providers that it names, or of all that were named.
    fn take(&mut self, nearer: &Logging) {
        if self.0.is_empty() && nearer.providers.is_empty() {
            self.0.insert(STANDARD_OUTPUT.into(), None);
        }
        for provider in &nearer.providers {
            self.0.entry(provider.clone()).or_default();
        }
        let is_meant = |name: &Arc<str>| nearer.providers.is_empty() || nearer.providers.contains(name);
        for (_, said) in self.0.iter_mut().filter(|(name, _)| is_meant(name)) {
            *said = (!nearer.disabled).then(|| nearer.choice.clone());
        }
    }

    /// Where nobody says anything there are lines at standard output.
    fn tell(mut self, outputs: &Outputs, told: &mut EffectiveTelemetry) {
        if self.0.is_empty() {
            self.0.insert(STANDARD_OUTPUT.into(), Some(Choice::default()));
        }
        for (name, choice) in self.0.into_iter().filter_map(|(name, said)| Some((name, said?))) {
            match outputs.get(&name) {
                Some(format) => told.outputs.push(Output { choice, format: format.clone() }),
                None if *name == *STANDARD_OUTPUT => told.outputs.push(Output { choice, format: None }),
                None => told.log_to.push((name, choice)),
            }
        }
    }
}

impl Tracing {
    /// What `nearer` says counts.
    fn take(&mut self, nearer: &Self) {
        let Self { side: _, provider, disabled, sampling, tags } = nearer;
        if provider.is_some() {
            self.provider.clone_from(provider);
        }
        self.disabled = disabled.or(self.disabled);
        self.sampling = sampling.or(self.sampling);
        if tags.is_some() {
            self.tags.clone_from(tags);
        }
    }
}

impl Tag {
    fn header(&self) -> Option<Arc<str>> {
        match self {
            Self::Header(name, _) => Some(name.clone()),
            Self::Literal(_) | Self::Environment(..) => None,
        }
    }
}
