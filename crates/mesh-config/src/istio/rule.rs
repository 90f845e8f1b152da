//! The rules of an AuthorizationPolicy.

use mesh_core::policy::{
    Action, Clause, IpBlock, IpBlocks, Pattern, Patterns, RequestTest, Rule, ServiceAccounts, Term, Test,
};
use serde::Deserialize;

use super::{Flaw, Remark, request_rule};
use crate::code::Code;

type Values = Option<Vec<String>>;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    /// Who asks; any of them.
    from: Option<Vec<RawFrom>>,
    /// What is asked for; any of them.
    to: Option<Vec<RawTo>>,
    /// Conditions; all of them.
    when: Option<Vec<RawCondition>>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawFrom {
    /// Who asks: all of its fields have to match.
    source: Option<RawSource>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSource {
    /// Identities of the caller: cluster.local/ns/NAMESPACE/sa/ACCOUNT, with * at the start or the end.
    principals: Values,
    /// Identities that the caller may not have.
    not_principals: Values,
    /// Issuer and subject of the request's token: ISSUER/SUBJECT.
    request_principals: Values,
    /// Issuers and subjects that the request's token may not have.
    not_request_principals: Values,
    /// Namespaces of the caller's identity.
    namespaces: Values,
    /// Namespaces that the caller may not be of.
    not_namespaces: Values,
    /// Service accounts of the caller: NAMESPACE/ACCOUNT, or ACCOUNT of the same namespace.
    service_accounts: Values,
    /// Service accounts that the caller may not have.
    not_service_accounts: Values,
    /// Addresses of the connection: single ones or CIDR.
    ip_blocks: Values,
    /// Addresses that the connection may not come from.
    not_ip_blocks: Values,
    /// Addresses of the original client, as trusted proxies tell it.
    remote_ip_blocks: Values,
    /// Addresses that the original client may not have.
    not_remote_ip_blocks: Values,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawTo {
    /// What is asked for: all of its fields have to match.
    operation: Option<RawOperation>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawOperation {
    /// Hosts of the request, without regard to case.
    hosts: Values,
    /// Hosts that it may not be for.
    not_hosts: Values,
    /// Ports of the destination.
    ports: Values,
    /// Ports that it may not be for.
    not_ports: Values,
    /// Methods of HTTP.
    methods: Values,
    /// Methods that it may not have.
    not_methods: Values,
    /// Paths in normal form, with * at either end, or templates with {*} and {**}.
    paths: Values,
    /// Paths that it may not have.
    not_paths: Values,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCondition {
    /// What is looked at, such as source.ip or request.headers[x-tenant].
    key: String,
    /// What it has to be; any of them.
    values: Values,
    /// What it may not be.
    not_values: Values,
}

/// Reads one rule of a policy in `namespace`.
pub(super) fn rule(
    raw: RawRule,
    field: &str,
    namespace: &str,
    action: Action,
    remarks: &mut Vec<Remark>,
) -> Result<Rule, Flaw> {
    let mut rule = Rule::default();
    let reader = Reader { namespace };
    for (index, from) in entries(raw.from, &format!("{field}.from"))?.into_iter().enumerate() {
        let place = format!("{field}.from[{index}].source");
        let source = from.source.ok_or_else(|| Flaw::value(&place, "it says nothing"))?;
        rule.from.push(reader.source(source, &place, &mut rule.needs_request)?);
    }
    for (index, to) in entries(raw.to, &format!("{field}.to"))?.into_iter().enumerate() {
        let place = format!("{field}.to[{index}].operation");
        let operation = to.operation.ok_or_else(|| Flaw::value(&place, "it says nothing"))?;
        rule.to.push(reader.operation(operation, &place, &mut rule.needs_request)?);
    }
    for (index, condition) in entries(raw.when, &format!("{field}.when"))?.into_iter().enumerate() {
        let place = format!("{field}.when[{index}]");
        rule.when.extend(reader.condition(condition, &place, &mut rule.needs_request)?);
    }
    for needed in &rule.needs_request {
        let effect = match action {
            Action::Allow => "the rule allows no connection",
            Action::Deny | Action::Custom => "the rule refuses whatever its other fields match",
            Action::Audit => "the rule reports whatever its other fields match",
        };
        remarks.push(Remark::new(Code::FieldNeedsRequest, &**needed, effect));
    }
    if rule.from.iter().chain(&rule.to).chain([&rule.when]).any(contradicts_itself) {
        let message = "a field and its not- form leave nothing";
        remarks.push(Remark::new(Code::NeverMatches, field, message));
    }
    Ok(rule)
}

/// The entries of a list, which may be absent and not empty: an empty one would be read as "any".
fn entries<T>(list: Option<Vec<T>>, field: &str) -> Result<Vec<T>, Flaw> {
    match list {
        Some(list) if list.is_empty() => Err(Flaw::value(field, "an empty list; leave it out to mean any")),
        list => Ok(list.unwrap_or_default()),
    }
}

struct Reader<'a> {
    namespace: &'a str,
}

impl Reader<'_> {
    fn source(&self, raw: RawSource, field: &str, needs_request: &mut Vec<Box<str>>) -> Result<Clause, Flaw> {
        let accounts = given(&raw.service_accounts) || given(&raw.not_service_accounts);
        let others = [&raw.principals, &raw.not_principals, &raw.namespaces, &raw.not_namespaces];
        if accounts && others.into_iter().any(given) {
            let message = "serviceAccounts stand alone, without principals or namespaces";
            return Err(Flaw::value(format!("{field}.serviceAccounts"), message));
        }
        let requests =
            [("requestPrincipals", raw.request_principals), ("notRequestPrincipals", raw.not_request_principals)];
        let fields: [(&str, Values, bool, &str); 10] = [
            ("principals", raw.principals, false, "source.principal"),
            ("notPrincipals", raw.not_principals, true, "source.principal"),
            ("namespaces", raw.namespaces, false, "source.namespace"),
            ("notNamespaces", raw.not_namespaces, true, "source.namespace"),
            ("serviceAccounts", raw.service_accounts, false, "source.serviceAccount"),
            ("notServiceAccounts", raw.not_service_accounts, true, "source.serviceAccount"),
            ("ipBlocks", raw.ip_blocks, false, "source.ip"),
            ("notIpBlocks", raw.not_ip_blocks, true, "source.ip"),
            ("remoteIpBlocks", raw.remote_ip_blocks, false, "remote.ip"),
            ("notRemoteIpBlocks", raw.not_remote_ip_blocks, true, "remote.ip"),
        ];
        let mut clause = Clause::new();
        for (name, values, negated, key) in fields {
            clause.extend(self.term(key, values, negated, &format!("{field}.{name}"))?);
        }
        clause.extend(request_terms(requests, field, needs_request)?);
        says_something(&clause, field)?;
        Ok(clause)
    }

    fn operation(&self, raw: RawOperation, field: &str, needs_request: &mut Vec<Box<str>>) -> Result<Clause, Flaw> {
        let requests = [
            ("hosts", raw.hosts),
            ("notHosts", raw.not_hosts),
            ("methods", raw.methods),
            ("notMethods", raw.not_methods),
            ("paths", raw.paths),
            ("notPaths", raw.not_paths),
        ];
        let mut clause = request_terms(requests, field, needs_request)?;
        clause.extend(self.term("destination.port", raw.ports, false, &format!("{field}.ports"))?);
        clause.extend(self.term("destination.port", raw.not_ports, true, &format!("{field}.notPorts"))?);
        says_something(&clause, field)?;
        Ok(clause)
    }

    fn condition(&self, raw: RawCondition, field: &str, needs_request: &mut Vec<Box<str>>) -> Result<Clause, Flaw> {
        let key = raw.key.as_str();
        if !given(&raw.values) && !given(&raw.not_values) {
            return Err(Flaw::value(field, format!("{key:?} has neither values nor notValues")));
        }
        if key.starts_with("request.") || key.starts_with("experimental.") || key == "connection.sni" {
            needs_request.push(format!("{field} ({key})").into());
            let mut clause = Clause::new();
            for (name, values, negated) in [("values", raw.values, false), ("notValues", raw.not_values, true)] {
                if let Some(values) = values.filter(|values| !values.is_empty()) {
                    let values = collect(&values, &format!("{field}.{name}"), pattern)?;
                    let test = request_rule::condition(key, values).map_err(|message| Flaw::value(field, message))?;
                    clause.push(Term { negated, test: Test::Request(test) });
                }
            }
            return Ok(clause);
        }
        let mut clause = Clause::new();
        clause.extend(self.term(key, raw.values, false, &format!("{field}.values"))?);
        clause.extend(self.term(key, raw.not_values, true, &format!("{field}.notValues"))?);
        Ok(clause)
    }

    /// A field of the manifest; none where it has no values.
    fn term(&self, key: &str, values: Values, negated: bool, field: &str) -> Result<Option<Term>, Flaw> {
        let values = values.unwrap_or_default();
        if values.is_empty() {
            return Ok(None);
        }
        let test = match key {
            "source.principal" => Test::Principal(collect(&values, field, principal)?),
            "source.namespace" => Test::Namespace(collect(&values, field, pattern)?),
            "source.serviceAccount" => Test::ServiceAccount(self.accounts(&values, field)?),
            "source.ip" => Test::SourceIp(blocks(&values, field)?),
            "remote.ip" => Test::RemoteIp(blocks(&values, field)?),
            "destination.ip" => Test::DestinationIp(blocks(&values, field)?),
            "destination.port" => Test::DestinationPort(ports(&values, field)?),
            other => return Err(Flaw::value(field, format!("nothing is known of the key {other:?}"))),
        };
        Ok(Some(Term { negated, test }))
    }

    fn accounts(&self, values: &[String], field: &str) -> Result<ServiceAccounts, Flaw> {
        collect(values, field, |value| {
            let (namespace, account) = value.split_once('/').unwrap_or((self.namespace, value));
            let parts = [namespace, account];
            if parts.iter().any(|part| part.is_empty() || part.contains(['*', '/'])) {
                return Err(format!("{value:?} is neither NAMESPACE/ACCOUNT nor ACCOUNT; there is no '*'"));
            }
            Ok((namespace.into(), account.into()))
        })
    }
}

fn given(values: &Values) -> bool {
    values.as_ref().is_some_and(|values| !values.is_empty())
}

/// What fields ask of a request; a field whose name begins with `not` is its negation.
fn request_terms<const N: usize>(
    fields: [(&str, Values); N],
    place: &str,
    needs_request: &mut Vec<Box<str>>,
) -> Result<Clause, Flaw> {
    let mut clause = Clause::new();
    for (name, values) in fields {
        let Some(values) = values.filter(|values| !values.is_empty()) else {
            continue;
        };
        let field = format!("{place}.{name}");
        let plain = name.strip_prefix("not").map_or_else(|| name.to_owned(), str::to_lowercase);
        let test = match plain.as_str() {
            "hosts" => RequestTest::Host(collect(&values, &field, |value| pattern(&value.to_ascii_lowercase()))?),
            "methods" => RequestTest::Method(collect(&values, &field, pattern)?),
            "paths" => RequestTest::Path(request_rule::paths(&values, &field)?),
            _ => RequestTest::RequestPrincipal(collect(&values, &field, pattern)?),
        };
        needs_request.push(field.into());
        clause.push(Term { negated: name.starts_with("not"), test: Test::Request(test) });
    }
    Ok(clause)
}

/// An entry without a single value would be read as "any".
fn says_something(clause: &Clause, field: &str) -> Result<(), Flaw> {
    if clause.is_empty() {
        return Err(Flaw::value(field, "it says nothing; leave the entry out to mean any"));
    }
    Ok(())
}

fn collect<T, C: FromIterator<T>>(
    values: &[String],
    field: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<C, Flaw> {
    let numbered = values.iter().enumerate();
    let read = |(index, value): (usize, &String)| {
        read(value).map_err(|message| Flaw::value(format!("{field}[{index}]"), message))
    };
    numbered.map(read).collect()
}

pub(super) fn pattern(value: &str) -> Result<Pattern, String> {
    Pattern::parse(value).map_err(|error| format!("{value:?}: {error}"))
}

fn principal(value: &str) -> Result<Pattern, String> {
    if value.starts_with("spiffe://") {
        return Err(format!("{value:?} never matches: principals are written without spiffe://"));
    }
    pattern(value)
}

fn blocks(values: &[String], field: &str) -> Result<IpBlocks, Flaw> {
    collect(values, field, |value| value.parse::<IpBlock>().map_err(|error| error.to_string()))
}

fn ports(values: &[String], field: &str) -> Result<Box<[u16]>, Flaw> {
    let mut ports: Vec<u16> = collect(values, field, |value| match value.parse::<u16>() {
        Ok(port) if port > 0 && port.to_string() == value => Ok(port),
        _ => Err(format!("{value:?} is no port from 1 to 65535")),
    })?;
    ports.sort_unstable();
    ports.dedup();
    Ok(ports.into())
}

/// Whether all that a field lists is excluded by its `not` form.
fn contradicts_itself(clause: &Clause) -> bool {
    let negated = |pick: fn(&Test, &Test) -> bool, test: &Test| {
        clause.iter().any(|other| other.negated && pick(test, &other.test))
    };
    let excludes = |wanted: &Test, unwanted: &Test| match (wanted, unwanted) {
        (Test::Principal(wanted), Test::Principal(unwanted)) | (Test::Namespace(wanted), Test::Namespace(unwanted)) => {
            all_excluded(wanted, unwanted)
        }
        (Test::DestinationPort(wanted), Test::DestinationPort(unwanted)) => {
            wanted.iter().all(|port| unwanted.binary_search(port).is_ok())
        }
        _ => wanted == unwanted,
    };
    clause.iter().any(|term| !term.negated && negated(excludes, &term.test))
}

fn all_excluded(wanted: &Patterns, unwanted: &Patterns) -> bool {
    wanted == unwanted || wanted.is_exact() && wanted.exact().all(|text| unwanted.matches(text))
}
