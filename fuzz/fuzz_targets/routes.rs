//! Routes, of both APIs, to tables; a request is given to the rule that looking at every rule finds.
#![no_main]

use std::borrow::Cow;
use std::cmp::Reverse;

use libfuzzer_sys::fuzz_target;
use mesh_config::{Config, LiveObjects, ObjectName, Options};
use mesh_core::Workload;
use mesh_core::l7::{HostRules, PathMatch, Precedence, RequestMatch, RequestView, RuleRef, TextMatch, split};
use serde_json::{Value, json};

/// Texts of which rules and requests are made, so that they meet; some begin others, in several ways.
const PATHS: [&str; 12] =
    ["/", "/a", "/a/", "/a/b", "/ab", "/A", "/A/B", "/a/b/c", "/%61", "/a//b", "/é", "/a.b"];
const PATTERNS: [&str; 6] = ["/a.*", ".*", "/[ab]+", "(/a|/ab)", "/a/?", "("];
const WORDS: [&str; 5] = ["", "a", "b", "ab", "A"];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const NAMES: [&str; 3] = ["x-a", "x-b", "X-A"];

/// Choices by the input; after its end, the first of everything.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn number(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(*first)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.number() % bound
    }

    fn of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.below(texts.len())]
    }

    fn list(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> Value) -> Value {
        let length = self.below(most + 1);
        Value::Array((0..length).map(|_| one(self)).collect())
    }

    fn text_match(&mut self) -> Value {
        match self.below(4) {
            0 => json!({"exact": self.of(&WORDS)}),
            1 => json!({"prefix": self.of(&WORDS)}),
            2 => json!({"regex": self.of(&["a*", "[ab]", ""])}),
            _ => json!({}),
        }
    }

    fn istio_match(&mut self) -> Value {
        let uri = match self.below(4) {
            0 => json!({"exact": self.of(&PATHS)}),
            1 => json!({"prefix": self.of(&PATHS)}),
            2 => json!({"regex": self.of(&PATTERNS)}),
            _ => Value::Null,
        };
        let mut matched = json!({"ignoreUriCase": self.below(2) == 0});
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                matched[key] = value;
            }
        };
        put("uri", uri);
        if self.below(3) == 0 {
            put("method", json!({"exact": self.of(&METHODS)}));
        }
        for key in ["headers", "withoutHeaders", "queryParams"] {
            if self.below(3) == 0 {
                put(key, json!({self.of(&NAMES): self.text_match()}));
            }
        }
        if self.below(8) == 0 {
            put("port", json!(80 + self.below(2)));
        }
        matched
    }

    fn gateway_match(&mut self) -> Value {
        let path = match self.below(4) {
            0 => json!({"type": "Exact", "value": self.of(&PATHS)}),
            1 => json!({"type": "PathPrefix", "value": self.of(&PATHS)}),
            2 => json!({"type": "RegularExpression", "value": self.of(&PATTERNS)}),
            _ => json!({"value": self.of(&PATHS)}),
        };
        let mut matched = json!({"path": path});
        if self.below(3) == 0 {
            matched["method"] = json!(self.of(&METHODS));
        }
        for key in ["headers", "queryParams"] {
            matched[key] = self.list(2, |choices| json!({"name": choices.of(&NAMES), "value": choices.of(&WORDS)}));
        }
        matched
    }

    fn virtual_service(&mut self) -> Value {
        let rules = self.list(4, |choices| {
            let route = choices.list(3, |choices| {
                json!({"destination": {"host": choices.of(&["cart", "nowhere"])}, "weight": choices.number()})
            });
            json!({"match": choices.list(3, Self::istio_match), "route": route})
        });
        json!({"hosts": ["cart"], "http": rules})
    }

    fn http_route(&mut self) -> Value {
        let rules = self.list(4, |choices| {
            let backends = choices.list(3, |choices| {
                json!({"name": choices.of(&["cart", "nowhere"]), "port": 80, "weight": choices.number()})
            });
            json!({"matches": choices.list(3, Self::gateway_match), "backendRefs": backends})
        });
        json!({"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": rules})
    }
}

/// A request of the same texts.
struct Request {
    method: &'static str,
    path: &'static str,
    query: Option<String>,
    header: Option<(&'static str, &'static str)>,
}

impl Request {
    fn of(choices: &mut Choices<'_>) -> Self {
        let query = (choices.below(2) == 0).then(|| format!("{}={}", choices.of(&NAMES), choices.of(&WORDS)));
        let header = (choices.below(2) == 0).then(|| (choices.of(&["x-a", "x-b"]), choices.of(&WORDS)));
        Self { method: choices.of(&METHODS), path: choices.of(&PATHS), query, header }
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        self.method
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn host(&self) -> &str {
        "cart"
    }

    fn port(&self) -> u16 {
        80
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.header.filter(|(known, _)| *known == name).map(|(_, value)| Cow::Borrowed(value))
    }

    fn client(&self) -> Option<&Workload> {
        None
    }
}

/// How specific a match is, as the Gateway API ranks them: the least first.
fn rank(matched: &RequestMatch) -> impl Ord + use<> {
    let path = match &matched.path {
        PathMatch::Exact(path) | PathMatch::ExactIgnoringCase(path) => (0, Reverse(path.len())),
        PathMatch::Any => (1, Reverse(1)),
        PathMatch::ElementPrefix(path) | PathMatch::Prefix(path) | PathMatch::PrefixIgnoringCase(path) => {
            (1, Reverse(path.len()))
        }
        PathMatch::Regex(pattern) => (2, Reverse(pattern.as_str().len())),
    };
    let method = matches!(matched.method, Some(TextMatch::Exact(_) | TextMatch::Prefix(_) | TextMatch::Regex(_)));
    (path, !method, Reverse(matched.headers.len()), Reverse(matched.query.len()))
}

/// Looks at every match of every rule.
fn slow<'a>(hosts: &'a HostRules, request: &Request) -> Option<&'a RuleRef> {
    let everything = [RequestMatch::default()];
    let mut holding = Vec::new();
    for rule in &hosts.rules {
        let matches = if rule.matches.is_empty() { &everything } else { rule.matches.as_slice() };
        holding.extend(matches.iter().filter(|one| one.matches(request)).map(|one| (rank(one), &rule.at)));
    }
    if hosts.precedence == Precedence::MostSpecific {
        holding.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    holding.first().map(|(_, at)| *at)
}

fn configuration(kind: &str, api_version: &str, spec: Value) -> std::sync::Arc<Config> {
    let mut objects = LiveObjects::new(Options::default());
    let mut apply = |api_version: &str, kind: &str, name: &str, spec: Value| {
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let name = ObjectName { group: "".into(), kind: kind.into(), namespace: Some("shop".into()), name: name.into() };
        objects.apply(name, object);
    };
    apply("v1", "Service", "cart", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    apply(api_version, kind, "route", spec);
    objects.publish()
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices(input);
    let config = if choices.below(2) == 0 {
        configuration("VirtualService", "networking.istio.io/v1", choices.virtual_service())
    } else {
        configuration("HTTPRoute", "gateway.networking.k8s.io/v1", choices.http_route())
    };
    for finding in config.findings.iter() {
        assert!(!finding.to_string().contains('\n'), "a finding is one line: {finding}");
    }
    let Some(table) = config.snapshot.l7().service_routes(None, "cart.shop.svc.cluster.local", 80) else {
        return;
    };
    let [hosts] = table.hosts() else {
        unreachable!("a Service's rules are for any host");
    };
    for _ in 0..4 {
        let request = Request::of(&mut choices);
        let found = table.find(&request);
        assert_eq!(found.map(|found| &found.rule.at), slow(hosts, &request));
        if let Some(found) = found
            && let mesh_core::l7::Action::Forward(backends) = &found.rule.action
        {
            let random = u64::from_be_bytes([choices.number() as u8; 8]);
            let weights: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
            let picked = split::pick(backends, random);
            assert_eq!(picked.is_some(), weights > 0);
            assert!(picked.is_none_or(|backend| backend.weight > 0), "who has no weight gets nothing");
        }
    }
});
