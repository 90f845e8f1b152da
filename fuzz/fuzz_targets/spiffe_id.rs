//! Identities as URIs, trust domains, and the namespaces and accounts that they are made of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_core::{SpiffeId, TrustDomain};

fuzz_target!(|text: &str| {
    if let Ok(identity) = SpiffeId::parse(text) {
        assert_eq!(identity.as_str(), text, "nothing is normalised: two texts are never one identity");
        let (namespace, account) = (identity.namespace(), identity.service_account());
        let domain: TrustDomain = identity.trust_domain().parse().expect("a part of an identity");
        let again = SpiffeId::new(&domain, namespace, account).expect("made of the same parts");
        assert_eq!(again, identity);
        assert!(identity.is_of(&domain));
    }
    if let Ok(domain) = text.parse::<TrustDomain>() {
        SpiffeId::new(&domain, "n", "a").expect("a trust domain is enough of one");
    }
    // No part may smuggle a separator into the whole.
    if let Ok(identity) = SpiffeId::new(&TrustDomain::default(), text, "a") {
        assert_eq!(identity.namespace(), text);
        assert_eq!(SpiffeId::parse(identity.as_str()).as_ref(), Ok(&identity));
    }
});
