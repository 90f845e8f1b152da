//! SPIFFE identities: what is accepted, what is not.
#![allow(clippy::unwrap_used)]

use std::str::FromStr;

use mesh_core::identity::{MAX_SPIFFE_ID, MAX_TRUST_DOMAIN};
use mesh_core::{IdentityError, SpiffeId, TrustDomain};
use proptest::prelude::*;

fn segment() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,40}".prop_filter("dots", |s| s != "." && s != "..")
}

fn trust_domain() -> impl Strategy<Value = TrustDomain> {
    "[a-z0-9._-]{1,40}".prop_map(|text| text.parse().unwrap())
}

proptest! {
    #[test]
    fn an_identity_reads_back_as_itself(td in trust_domain(), ns in segment(), sa in segment()) {
        let id = SpiffeId::new(&td, &ns, &sa).unwrap();
        let text = id.to_string();
        let again = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(&again, &id);
        prop_assert_eq!(again.trust_domain(), td.as_str());
        prop_assert_eq!(again.namespace(), ns);
        prop_assert_eq!(again.service_account(), sa);
        prop_assert_eq!(format!("spiffe://{}", again.principal()), text);
        prop_assert!(again.is_of(&td));
    }

    #[test]
    fn whatever_is_accepted_is_canonical(text in "(spiffe://)?[a-zA-Z0-9./:@?#%_-]{0,60}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn any_one_foreign_character_is_refused(
        at in 0usize..40,
        bad in prop::sample::select(vec![' ', '%', '?', '#', ':', '@', '\\', '\0', 'é', '\n', '*', '/']),
    ) {
        let mut text = "spiffe://cluster.local/ns/shop/sa/cart".to_owned();
        text.insert(at.min(text.len()), bad);
        prop_assert!(SpiffeId::parse(&text).is_err(), "{}", text);
    }

    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = SpiffeId::parse(&text);
        let _ = TrustDomain::from_str(&text);
    }
}

#[test]
fn what_is_not_exactly_the_form_is_refused() {
    let cases = [
        "",
        "spiffe://",
        "spiffe:///ns/shop/sa/cart",
        "SPIFFE://cluster.local/ns/shop/sa/cart",
        "Spiffe://cluster.local/ns/shop/sa/cart",
        "https://cluster.local/ns/shop/sa/cart",
        "cluster.local/ns/shop/sa/cart",
        "spiffe://Cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local:443/ns/shop/sa/cart",
        "spiffe://user@cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/shop",
        "spiffe://cluster.local/ns/shop/sa",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe://cluster.local/ns//sa/cart",
        "spiffe://cluster.local//ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/cart/",
        "spiffe://cluster.local/ns/shop/sa/cart/x",
        "spiffe://cluster.local/ns/shop/sa/cart?x=1",
        "spiffe://cluster.local/ns/shop/sa/cart#x",
        "spiffe://cluster.local/ns/../sa/cart",
        "spiffe://cluster.local/ns/shop/sa/.",
        "spiffe://cluster.local/ns/sh%6fp/sa/cart",
        "spiffe://cluster.local/NS/shop/sa/cart",
        "spiffe://cluster.local/sa/cart/ns/shop",
        " spiffe://cluster.local/ns/shop/sa/cart",
        "spiffe://cluster.local/ns/shop/sa/cart ",
        "spiffe://cluster.local/ns/shop/sa/kärt",
    ];
    for case in cases {
        assert!(SpiffeId::parse(case).is_err(), "{case:?}");
    }
}

#[test]
fn lengths_are_bounded() {
    let longest = "a".repeat(MAX_TRUST_DOMAIN);
    assert!(TrustDomain::from_str(&longest).is_ok());
    let longer = "a".repeat(MAX_TRUST_DOMAIN + 1);
    assert_eq!(TrustDomain::from_str(&longer), Err(IdentityError::TrustDomain(longer)));

    let prefix = "spiffe://cluster.local/ns/shop/sa/";
    let fits = format!("{prefix}{}", "a".repeat(MAX_SPIFFE_ID - prefix.len()));
    assert!(SpiffeId::parse(&fits).is_ok());
    let over = format!("{fits}a");
    assert_eq!(SpiffeId::parse(&over), Err(IdentityError::TooLong(MAX_SPIFFE_ID + 1)));
    let account = "a".repeat(MAX_SPIFFE_ID);
    let error = SpiffeId::new(&TrustDomain::default(), "shop", &account);
    assert!(matches!(error, Err(IdentityError::TooLong(_))));
}

#[test]
fn parts_that_would_make_another_identity_are_refused() {
    let td = TrustDomain::default();
    for (namespace, account) in [("a/sa/b", "c"), ("a", "b/c"), ("", "a"), ("a", ""), ("..", "a")] {
        assert!(SpiffeId::new(&td, namespace, account).is_err(), "{namespace:?} {account:?}");
    }
}
