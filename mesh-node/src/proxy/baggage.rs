//! The `baggage` header (W3C Baggage) by which a tunnel's client names its workload, with ztunnel's keys.
//! It is for telemetry alone: no decision rests on it.

use mesh_core::Workload;

/// The header's value for a source workload.
pub(super) fn of(workload: &Workload, cluster: &str) -> String {
    let pairs = [
        ("k8s.cluster.name", cluster),
        ("k8s.namespace.name", &workload.namespace),
        ("k8s.deployment.name", &workload.workload_name),
        ("service.name", &workload.canonical_service),
        ("service.version", &workload.canonical_revision),
    ];
    let present = pairs.iter().filter(|(_, value)| !value.is_empty());
    let members: Vec<String> = present.map(|(key, value)| format!("{key}={}", encode(value))).collect();
    members.join(",")
}

/// Percent-encodes what may not stand in a baggage value.
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_labels_cannot_forge_members() {
        assert_eq!(encode("a,b=c;d e%"), "a%2Cb%3Dc%3Bd%20e%25");
        assert_eq!(encode("cart-v1.2_x~"), "cart-v1.2_x~");
    }
}
