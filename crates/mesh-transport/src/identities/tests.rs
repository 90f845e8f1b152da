use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::ca::{CertificateAuthority, LocalAuthority};
use crate::source::Signing;

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).expect("authority")
}

fn store() -> Identities {
    let source = Arc::new(LocalAuthority::fixed(authority()).expect("usable"));
    Identities::new(source, IdentitySettings::new(TrustDomain::default()))
}

fn cart() -> SpiffeId {
    SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").expect("valid")
}

/// An authority that can be away.
#[derive(Debug)]
struct Flaky {
    authority: LocalAuthority,
    is_away: AtomicBool,
}

impl CertificateSource for Flaky {
    fn sign<'a>(&'a self, request: &'a str, identity: &'a SpiffeId, lifetime: Duration) -> Signing<'a> {
        if self.is_away.load(Ordering::Relaxed) {
            let unreachable = SignError::Unreachable { address: "nowhere".to_owned(), problem: "refused".to_owned() };
            return Box::pin(async { Err(unreachable) });
        }
        self.authority.sign(request, identity, lifetime)
    }

    fn trust(&self) -> TrustFeed {
        self.authority.trust()
    }
}

fn flaky(lifetime: Duration, patience: Duration) -> (Arc<Flaky>, Identities) {
    let authority = LocalAuthority::fixed(authority()).expect("usable");
    let source = Arc::new(Flaky { authority, is_away: AtomicBool::new(true) });
    let settings = IdentitySettings { lifetime, patience, ..IdentitySettings::new(TrustDomain::default()) };
    (source.clone(), Identities::new(source, settings))
}

#[tokio::test]
async fn a_certificate_is_made_once_and_shared() {
    let store = store();
    let (a, b) = (store.fetch(&cart()).await.unwrap(), store.fetch(&cart()).await.unwrap());
    assert!(Arc::ptr_eq(&a, &b));
}

#[tokio::test]
async fn a_certificate_is_renewed_at_about_half_of_its_life() {
    let store = store();
    store.fetch(&cart()).await.unwrap();
    let status = store.certificates().remove(0);
    let life = status.not_after.unwrap().duration_since(SystemTime::now()).unwrap();
    let until = status.next_renewal.unwrap().duration_since(SystemTime::now()).unwrap();
    let share = until.as_secs_f64() / life.as_secs_f64();
    assert!((0.39..0.61).contains(&share), "{share}");
}

#[tokio::test]
async fn what_is_held_is_fetched_without_being_asked_for_and_renewed_when_due() {
    let (source, store) = flaky(Duration::from_secs(2), PATIENCE);
    source.is_away.store(false, Ordering::Relaxed);
    store.hold(&HashSet::from([cart()]));
    let running = tokio::spawn({
        let store = store.clone();
        async move { store.run().await }
    });
    let mut serials = HashSet::new();
    let started = SystemTime::now();
    while serials.len() < 3 && started.elapsed().unwrap() < Duration::from_secs(30) {
        serials.extend(store.certificates().into_iter().filter_map(|status| status.serial));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(serials.len(), 3, "{:?}", store.certificates());
    running.abort();
}

#[tokio::test]
async fn identities_that_are_not_held_are_forgotten() {
    let store = store();
    store.fetch(&cart()).await.unwrap();
    store.hold(&HashSet::new());
    assert!(store.certificates().is_empty());
}

#[tokio::test]
async fn a_caller_waits_for_an_authority_that_comes_back() {
    let (source, store) = flaky(CERTIFICATE_LIFETIME, Duration::from_secs(30));
    let cart = cart();
    let (fetched, ()) = tokio::join!(store.fetch(&cart), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        source.is_away.store(false, Ordering::Relaxed);
    });
    fetched.unwrap();
    let status = store.authority();
    assert!(status.failed >= 1 && status.renewed == 1 && status.is_reachable == Some(true), "{status:?}");
}

#[tokio::test]
async fn a_caller_is_refused_after_a_bounded_time_and_told_why() {
    let (_source, store) = flaky(CERTIFICATE_LIFETIME, Duration::from_millis(700));
    let started = std::time::Instant::now();
    let error = store.fetch(&cart()).await.unwrap_err().to_string();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(error.contains("cart") && error.contains("nowhere cannot be reached"), "{error}");
    assert_eq!(store.authority().is_reachable, Some(false));
    assert!(store.certificates()[0].last_error.as_ref().unwrap().contains("cannot be reached"));
}

#[tokio::test]
async fn a_certificate_that_is_held_outlives_its_authority() {
    let (source, store) = flaky(Duration::from_secs(3600), PATIENCE);
    source.is_away.store(false, Ordering::Relaxed);
    let first = store.fetch(&cart()).await.unwrap();
    source.is_away.store(true, Ordering::Relaxed);
    assert!(Arc::ptr_eq(&first, &store.fetch(&cart()).await.unwrap()));
}

/// An authority whose clock is not ours.
#[derive(Debug)]
struct ElsewhereInTime(CertificateAuthority, SystemTime, TrustFeed);

impl CertificateSource for ElsewhereInTime {
    fn sign<'a>(&'a self, request: &'a str, identity: &'a SpiffeId, lifetime: Duration) -> Signing<'a> {
        let request = crate::csr::CertificateRequest::from_pem(request).expect("our own");
        let signed = self.0.sign(&request, identity, lifetime, self.1).map_err(SignError::from);
        Box::pin(async { signed })
    }

    fn trust(&self) -> TrustFeed {
        self.2.clone()
    }
}

#[tokio::test]
async fn a_wrong_clock_is_named_as_the_reason() {
    for (now, sign) in
        [(SystemTime::now() + Duration::from_secs(3600), ""), (SystemTime::now() - Duration::from_secs(7200), "-")]
    {
        let authority = CertificateAuthority::generate(&TrustDomain::default(), now).expect("authority");
        let trust = crate::trust::PeerVerifier::new(authority.trust().clone()).expect("usable").into_feed();
        let source = Arc::new(ElsewhereInTime(authority, now, trust));
        let settings = IdentitySettings {
            lifetime: Duration::from_secs(3600),
            patience: Duration::from_millis(300),
            ..IdentitySettings::new(TrustDomain::default())
        };
        let store = Identities::new(source, settings);
        let error = store.fetch(&cart()).await.unwrap_err().to_string();
        assert!(error.contains("set the clock") && error.contains(&format!(" {sign}")), "{error}");
        assert!(store.authority().clock_behind.abs() > 3000);
    }
}
