//! Who is asked about a request, and in which order, against a second implementation that is slow and obvious.

use std::sync::Arc;

use mesh_core::policy::{
    Action, Answered, AuthorizationPolicy, Basis, Decision, Denial, Pattern, Patterns, RequestFacts, RequestTest, Rule,
    Term, Test, authorize_request,
};
use mesh_core::{PolicyName, SpiffeId, TrustDomain};
use proptest::prelude::*;

use crate::{Request, connection_of};

/// A policy that matches requests with one of the marks, which are header fields; without any it matches all.
#[derive(Debug, Clone)]
struct Written {
    action: Action,
    provider: Option<&'static str>,
    dry_run: bool,
    marks: Vec<&'static str>,
}

/// What an authorizer does: whether it allows, and the mark that it puts on a request.
#[derive(Debug, Clone)]
struct Behaviour {
    allows: bool,
    adds: Option<&'static str>,
}

const MARKS: [&str; 3] = ["x-one", "x-two", "x-three"];
const AUTHORIZERS: [&str; 2] = ["opa", "login"];

impl Written {
    fn matches(&self, marks: &[&'static str]) -> bool {
        self.marks.is_empty() || self.marks.iter().any(|mark| marks.contains(mark))
    }
}

fn translate(index: usize, written: &Written) -> Arc<AuthorizationPolicy> {
    let present: Patterns = [Pattern::Presence].into_iter().collect();
    let clause = |mark: &&str| {
        let test = RequestTest::Header((*mark).into(), present.clone());
        vec![Term { negated: false, test: Test::Request(test) }]
    };
    let rule = Rule { to: written.marks.iter().map(clause).collect(), ..Rule::default() };
    Arc::new(AuthorizationPolicy {
        name: Arc::new(PolicyName { namespace: "shop".into(), name: format!("policy-{index}").into() }),
        selector: None,
        action: written.action,
        provider: written.provider.map(Into::into),
        dry_run: written.dry_run,
        rules: vec![rule],
    })
}

/// The course of a request in words: who is asked, and what becomes of it.
fn expected(policies: &[Written], mut marks: Vec<&'static str>, behave: &dyn Fn(&str) -> Behaviour) -> Vec<String> {
    let mut course: Vec<String> = Vec::new();
    let named = || policies.iter().enumerate().filter(|(_, policy)| !policy.dry_run);
    'again: loop {
        for (index, policy) in named().filter(|(_, policy)| policy.action == Action::Custom) {
            let Some(provider) = policy.provider else {
                if policy.matches(&marks) {
                    course.push(format!("refused by CUSTOM policy-{index}"));
                    return course;
                }
                continue;
            };
            let question = format!("asks {provider}");
            if course.contains(&question) || !policy.matches(&marks) {
                continue;
            }
            course.push(question);
            let behaviour = behave(provider);
            if !behaviour.allows {
                course.push(format!("refused by {provider}"));
                return course;
            }
            marks.extend(behaviour.adds);
            continue 'again;
        }
        break;
    }
    let mut denies = named().filter(|(_, policy)| policy.action == Action::Deny);
    let mut allows = named().filter(|(_, policy)| policy.action == Action::Allow).peekable();
    course.push(match (denies.find(|(_, policy)| policy.matches(&marks)), allows.peek()) {
        (Some((index, _)), _) => format!("refused by DENY policy-{index}"),
        (None, None) => "allowed".to_owned(),
        (None, Some(_)) => match allows.find(|(_, policy)| policy.matches(&marks)) {
            Some((index, _)) => format!("allowed by policy-{index}"),
            None => "refused by all".to_owned(),
        },
    });
    course
}

fn found(policies: &[Written], marks: &[&'static str], behave: &dyn Fn(&str) -> Behaviour) -> Vec<String> {
    let policies: Vec<_> = policies.iter().enumerate().map(|(index, policy)| translate(index, policy)).collect();
    let policies: Vec<_> = policies.iter().collect();
    let identity = SpiffeId::new(&TrustDomain::default(), "shop", "web").unwrap();
    let facts = connection_of(&identity);
    let mut request = Request { headers: marks.iter().map(|mark| (*mark, "yes")).collect(), ..Request::get("/") };
    let (mut course, mut answered) = (Vec::new(), Answered::default());
    loop {
        let view = RequestFacts { view: &request, token: None };
        match authorize_request(&policies, &facts, &view, &answered) {
            Decision::Ask(question) => {
                let provider = question.provider().to_string();
                course.push(format!("asks {provider}"));
                let behaviour = behave(&provider);
                if !behaviour.allows {
                    course.push(format!("refused by {provider}"));
                    return course;
                }
                request.headers.extend(behaviour.adds.map(|mark| (mark, "yes")));
                answered = question.allowed();
            }
            Decision::Settled(settled) => {
                course.push(match settled.verdict.as_ref().map(|permit| permit.basis()) {
                    Ok(Basis::NoAllowPolicy) => "allowed".to_owned(),
                    Ok(Basis::AllowedBy(policy)) => format!("allowed by {}", policy.name),
                    Err(Denial::Custom(policy)) => format!("refused by CUSTOM {}", policy.name),
                    Err(Denial::DeniedBy(policy)) => format!("refused by DENY {}", policy.name),
                    Err(Denial::NoAllowMatches { .. }) => "refused by all".to_owned(),
                    Err(other) => other.to_string(),
                });
                return course;
            }
        }
    }
}

fn written() -> impl Strategy<Value = Written> {
    let action = prop::sample::select(vec![Action::Custom, Action::Custom, Action::Deny, Action::Allow, Action::Audit]);
    let provider = prop::option::weighted(0.9, prop::sample::select(AUTHORIZERS.to_vec()));
    let marks = prop::sample::subsequence(MARKS.to_vec(), 0..=2);
    (action, provider, prop::bool::weighted(0.15), marks).prop_map(|(action, provider, dry_run, marks)| {
        let provider = provider.filter(|_| action == Action::Custom);
        Written { action, provider, dry_run, marks }
    })
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    (prop::bool::weighted(0.7), prop::option::of(prop::sample::select(MARKS.to_vec())))
        .prop_map(|(allows, adds)| Behaviour { allows, adds })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn authorizers_are_asked_as_istio_has_them_asked(
        policies in prop::collection::vec(written(), 0..6),
        marks in prop::sample::subsequence(MARKS.to_vec(), 0..=2),
        (opa, login) in (behaviour(), behaviour()),
    ) {
        let behave = |provider: &str| if provider == "opa" { opa.clone() } else { login.clone() };
        prop_assert_eq!(found(&policies, &marks, &behave), expected(&policies, marks, &behave));
    }
}
