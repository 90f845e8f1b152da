//! `extensionProviders`: a name and one of several kinds. A kind that comes to be honoured gets its arm here, its variant in
//! [`Provider`], and a file beside this one that reads its fields.

use std::collections::HashSet;
use std::sync::Arc;

use mesh_core::provider::{Provider, ProviderAddress};
use mesh_core::telemetry::LineFormat;
use serde_json::{Map, Value};

use super::super::{Flaw, Remark};
use super::{MeshConfig, authorizer, lines, otel};
use crate::code::Code;

/// What an entry is.
enum Entry {
    Provider(Provider),
    /// Standard output, and how lines are written there.
    Output(Option<Arc<LineFormat>>),
}

impl MeshConfig {
    /// Reads the list.
    pub(super) fn providers(&mut self, value: Value, field: &str) -> Result<(), Flaw> {
        let Value::Array(list) = value else { return Err(Flaw::value(field, "it is no list")) };
        let mut names = HashSet::new();
        for (index, entry) in list.into_iter().enumerate() {
            let field = format!("{field}[{index}]");
            let Value::Object(entry) = entry else { return Err(Flaw::value(field, "it is no mapping")) };
            let Some((name, entry)) = provider(entry, &field, &mut self.remarks)? else { continue };
            let name = Arc::<str>::from(name);
            if !names.insert(name.clone()) {
                return Err(Flaw::value(format!("{field}.name"), format!("an earlier provider is named {name:?} too")));
            }
            match entry {
                Entry::Provider(provider) => self.providers.push((name, provider)),
                Entry::Output(format) => drop(self.outputs.insert(name, format)),
            }
        }
        Ok(())
    }
}

/// One entry; none where its kind is not honoured.
fn provider(
    mut entry: Map<String, Value>,
    field: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Option<(String, Entry)>, Flaw> {
    let Some(Value::String(name)) = entry.remove("name").filter(|name| name.as_str() != Some("")) else {
        return Err(Flaw::value(format!("{field}.name"), "a provider has a name"));
    };
    let mut kinds = entry.into_iter();
    let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
        return Err(Flaw::value(field, format!("provider {name:?} is of one kind: not of none, nor of several")));
    };
    let field = format!("{field}.{kind}");
    // What is routed here is always what the authorizer has made of the request.
    if kind.starts_with("envoyExtAuthz") && value.get("clearRouteCache") == Some(&Value::Bool(false)) {
        let message = "requests are routed as the authorizer has changed them: there is no route from before to keep";
        remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.clearRouteCache"), message));
    }
    let provider = match kind.as_str() {
        "envoyExtAuthzHttp" => Provider::Authorizer(Arc::new(authorizer::by_http(value, &field)?)),
        "envoyExtAuthzGrpc" => Provider::Authorizer(Arc::new(authorizer::by_grpc(value, &field)?)),
        "envoyOtelAls" | "opentelemetry" => Provider::Collector(Arc::new(otel::collector(value, &field, remarks)?)),
        "envoyFileAccessLog" => {
            return Ok(lines::output(value, &field, remarks)?.map(|format| (name, Entry::Output(format))));
        }
        _ => {
            let message = format!("provider {name:?} is of a kind that nothing asks");
            remarks.push(Remark::new(Code::FieldNotHonoured, field, message));
            return Ok(None);
        }
    };
    Ok(Some((name, Entry::Provider(provider))))
}

/// Where a provider is: `HOST` or `NAMESPACE/HOST`, and a port.
pub(super) fn address(service: &str, port: &Value, field: &str) -> Result<ProviderAddress, Flaw> {
    let (namespace, host) = match service.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, service),
    };
    let usable = |text: &str| !text.is_empty() && !text.contains(['/', '*', ' ']);
    if !usable(host) || namespace.is_some_and(|namespace| !usable(namespace)) {
        let message = format!("{service:?} is neither HOST nor NAMESPACE/HOST, of a Service's full host name");
        return Err(Flaw::value(format!("{field}.service"), message));
    }
    // Protobuf's JSON may write a number as text.
    let number = match port {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    let port = number.filter(|number: &u16| *number > 0);
    let port = port.ok_or_else(|| Flaw::value(format!("{field}.port"), "it is no port from 1 to 65535"))?;
    Ok(ProviderAddress { namespace: namespace.map(Into::into), host: host.to_ascii_lowercase().into(), port })
}
