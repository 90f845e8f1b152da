//! The mesh configuration: the ConfigMap `istio` of the root namespace, whose `data.mesh` is a text of its own
//! (istio.io, reference/config/istio.mesh.v1alpha1).

mod authorizer;
mod defaults;
mod lines;
mod otel;
mod provider;

use std::sync::Arc;

use mesh_core::l7::topology::TopologyPart;
use mesh_core::l7::traffic::Defaults;
use mesh_core::locality::LocalitySetting;
use mesh_core::provider::Provider;
use mesh_core::telemetry::{Logging, Outputs, Tracing};
use serde_json::{Map, Value};

use super::locality::RawLocality;
use super::{Flaw, ProxyConfig, Remark};
use crate::code::Code;
use crate::document::{Format, documents};
use crate::finding::ObjectName;
use crate::limits::Limits;

/// The name of the ConfigMap.
pub(crate) const NAME: &str = "istio";
/// The field in which it stands.
const FIELD: &str = "data.mesh";

/// What the mesh is asked to do as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshConfig {
    /// The providers that policies may name, in the order in which they stand.
    pub providers: Vec<(Arc<str>, Provider)>,
    /// The trust domain that it names.
    pub trust_domain: Option<String>,
    /// The root namespace that it names.
    pub root_namespace: Option<String>,
    /// What stands before gateways (`defaultConfig.gatewayTopology`).
    pub topology: TopologyPart,
    /// Which localities are preferred where no DestinationRule says so.
    pub locality: LocalitySetting,
    /// Which requests and connections have lines where no Telemetry says it.
    pub logging: Vec<Logging>,
    /// The providers of logs that are standard output, and how lines are written there.
    pub outputs: Outputs,
    /// The same of traces.
    pub tracing: Vec<Tracing>,
    /// What holds for connections and retries where no rule says it.
    pub defaults: Defaults,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

impl MeshConfig {
    /// Whether a ConfigMap of that name is it.
    pub(crate) fn is_named(name: &ObjectName, limits: &Limits) -> bool {
        *name.name == *NAME && name.namespace.as_deref().unwrap_or("default") == &*limits.root_namespace
    }

    pub(crate) fn read(value: &Value) -> Result<Self, Flaw> {
        let mut read = Self::default();
        let data = value.get("data").and_then(Value::as_object);
        for (key, text) in data.into_iter().flatten() {
            // Networks of several clusters; an empty list of them is what everybody has.
            if key != "mesh" && !(key == "meshNetworks" && text == "networks: {}") {
                read.ignore(format!("data.{key}"));
            }
        }
        match data.and_then(|data| data.get("mesh")) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => read.fields(fields(text)?)?,
            Some(_) => return Err(Flaw::value(FIELD, "it is no text")),
        }
        Ok(read)
    }

    fn fields(&mut self, mut fields: Map<String, Value>) -> Result<(), Flaw> {
        self.lines(&mut fields)?;
        for (name, value) in fields {
            let field = format!("{FIELD}.{name}");
            match name.as_str() {
                "extensionProviders" => self.providers(value, &field)?,
                "trustDomain" => self.trust_domain = Some(text(value, &field)?),
                "localityLbSetting" if value.is_null() => {}
                "localityLbSetting" => self.locality = locality(value, &field)?,
                "rootNamespace" => self.root_namespace = Some(text(value, &field)?),
                "defaultConfig" => {
                    let mut value = value;
                    if let Some(tracing) = value.as_object_mut().and_then(|fields| fields.remove("tracing")) {
                        self.tracing(&tracing, &format!("{field}.tracing"))?;
                    }
                    let read = ProxyConfig::of(value, &field)?;
                    self.topology = read.topology;
                    self.remarks.extend(read.remarks);
                }
                _ if value.is_null() || self.default_of(&name, &value, &field)? => {}
                _ => self.ignore(field),
            }
        }
        Ok(())
    }

    fn ignore(&mut self, field: String) {
        self.remarks.push(Remark::new(Code::FieldNotHonoured, field, "it has no effect"));
    }
}

fn locality(value: Value, field: &str) -> Result<LocalitySetting, Flaw> {
    let raw: RawLocality = serde_path_to_error::deserialize(value).map_err(|error| Flaw {
        code: Code::WrongField,
        field: format!("{field}.{}", error.path()),
        message: error.inner().to_string(),
    })?;
    raw.read(field)
}

fn text(value: Value, field: &str) -> Result<String, Flaw> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(Flaw { code: Code::WrongField, field: field.to_owned(), message: "it is no text".to_owned() }),
    }
}

/// The text's one document.
fn fields(text: &str) -> Result<Map<String, Value>, Flaw> {
    let limits = Limits::default();
    let mut all = documents(text, Format::Yaml);
    let Some(first) = all.next() else { return Ok(Map::new()) };
    let value = first.value(&limits).map_err(|broken| {
        let message = match broken.place {
            Some((line, column)) => format!("at line {line}, column {column} of the text: {}", broken.message),
            None => broken.message,
        };
        Flaw { code: Code::Syntax, field: FIELD.to_owned(), message }
    })?;
    if all.next().is_some() {
        return Err(Flaw::value(FIELD, "the text is of several documents; it is read where it is one"));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        _ => Err(Flaw::value(FIELD, "the text is no mapping")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mesh_core::provider::AskedBy;
    use serde_json::json;

    use super::*;

    fn read(mesh: &str) -> Result<MeshConfig, Flaw> {
        MeshConfig::read(&json!({"data": {"mesh": mesh, "meshNetworks": "networks: {}"}}))
    }

    fn authorizer(kind: &str, fields: &str) -> Result<MeshConfig, String> {
        let mesh = format!("extensionProviders:\n- name: one\n  {kind}: {{service: a.b.svc.c, port: 80, {fields}}}\n");
        read(&mesh).map_err(|flaw| flaw.field.replace("data.mesh.extensionProviders[0].", ""))
    }

    #[test]
    fn what_says_nothing_is_as_istio_has_it() {
        for (kind, by_grpc) in [("envoyExtAuthzGrpc", true), ("envoyExtAuthzHttp", false)] {
            let read = authorizer(kind, "").unwrap();
            let [(name, Provider::Authorizer(read))] = &read.providers[..] else { panic!("{read:?}") };
            assert_eq!((&**name, &*read.address.host, read.address.port), ("one", "a.b.svc.c", 80));
            assert_eq!((read.timeout.as_secs(), read.status_on_error), (600, 403));
            assert_eq!((read.fail_open, read.body), (false, None));
            assert_eq!(read.asked_by == AskedBy::Grpc, by_grpc);
        }
    }

    #[test]
    fn every_other_field_is_told_of_by_name() {
        let read = read(
            "accessLogFile: /var/log/all\naccessLogFormat: '%START_TIME% %FILTER_STATE(a)%'\n\
             enablePrometheusMerge: true\nextensionProviders:\n- {name: z, zipkin: {}}\nrootNamespace: r\n\
             defaultConfig: {tracing: {sampling: 10, zipkin: {address: a}}}\n\
             defaultProviders: {metrics: [stackdriver, prometheus], tracing: [a, b]}\n",
        );
        let read = read.unwrap();
        let fields: Vec<_> = read.remarks.iter().map(|remark| remark.field.trim_start_matches("data.mesh.")).collect();
        let expected = [
            "accessLogFile",
            "accessLogFormat",
            "defaultConfig.tracing.zipkin",
            "defaultProviders.metrics",
            "defaultProviders.tracing",
            "enablePrometheusMerge",
            "extensionProviders[0].zipkin",
        ];
        assert_eq!(BTreeSet::from_iter(fields), BTreeSet::from(expected));
        assert_eq!((read.root_namespace.as_deref(), read.providers.len()), (Some("r"), 0));
        assert_eq!(self::read("").unwrap(), MeshConfig::default());
        assert_eq!(MeshConfig::read(&json!({})).unwrap(), MeshConfig::default());
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_its_field() {
        let cases = [
            ("envoyExtAuthzGrpc", "timeout: never", "envoyExtAuthzGrpc.timeout"),
            ("envoyExtAuthzGrpc", "timeout: 0s", "envoyExtAuthzGrpc.timeout"),
            ("envoyExtAuthzGrpc", "failOpn: true", "envoyExtAuthzGrpc.failOpn"),
            ("envoyExtAuthzGrpc", "statusOnError: '200'", "envoyExtAuthzGrpc.statusOnError"),
            ("envoyExtAuthzGrpc", "pathPrefix: /x", "envoyExtAuthzGrpc.pathPrefix"),
            ("envoyExtAuthzHttp", "pathPrefix: x", "envoyExtAuthzHttp.pathPrefix"),
            (
                "envoyExtAuthzHttp",
                "includeRequestBodyInCheck: {maxRequestBytes: 0}",
                "envoyExtAuthzHttp.includeRequestBodyInCheck.maxRequestBytes",
            ),
            ("envoyExtAuthzHttp", "headersToUpstreamOnAllow: [x, '']", "envoyExtAuthzHttp.headersToUpstreamOnAllow[1]"),
            (
                "envoyExtAuthzHttp",
                "includeAdditionalHeadersInCheck: {'a b': c}",
                "envoyExtAuthzHttp.includeAdditionalHeadersInCheck",
            ),
        ];
        for (kind, fields, place) in cases {
            assert_eq!(authorizer(kind, fields).unwrap_err(), place, "{fields}");
        }
        let whole = [
            ("extensionProviders: [{name: one}]", "data.mesh.extensionProviders[0]"),
            ("extensionProviders: [{zipkin: {}}]", "data.mesh.extensionProviders[0].name"),
            ("extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a.b, port: '0'}}]", "port"),
            ("extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: a/b/c, port: 1}}]", "service"),
            ("extensionProviders: {", "data.mesh"),
            ("a: 1\n---\nb: 1\n", "data.mesh"),
            ("[]", "data.mesh"),
            ("tcpKeepalive: {time: soon}", "data.mesh.tcpKeepalive.time"),
            ("defaultHttpRetryPolicy: {attempts: -1}", "data.mesh.defaultHttpRetryPolicy.attempts"),
            ("defaultConfig: {tracing: {sampling: 101}}", "data.mesh.defaultConfig.tracing.sampling"),
            ("connectTimeout: soon", "data.mesh.connectTimeout"),
        ];
        for (text, place) in whole {
            let flaw = read(text).unwrap_err();
            assert!(flaw.field.ends_with(place), "{text}: {flaw:?}");
        }
    }
}
