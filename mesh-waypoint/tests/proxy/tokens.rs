//! RequestAuthentication: whose tokens are believed, and what policies and destinations see of them.

use std::rc::Rc;

use aws_lc_rs::hmac;
use http::Request;
use http::request::Parts;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::gateway::{GATEWAY, gateway, get};
use crate::issuer::{ISSUER, Issuer, alice, b64, now};
use crate::server::{Answer, Backend, Client, serve, serve_carts};
use crate::world::{CARTS, OUTSIDE, World, run_as, run_with};

/// A RequestAuthentication of what goes by the waypoint, with further fields of its rule.
pub(crate) fn authentication(keys: &str, more: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: tokens, namespace: shop}}\n\
         spec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}}]\n  jwtRules:\n  \
         - issuer: {ISSUER}\n    {keys}\n{more}\n---\n"
    )
}

/// Keys in the manifest itself.
pub(crate) fn inline(issuer: &Issuer) -> String {
    format!("jwks: '{}'", issuer.keys())
}

/// An AuthorizationPolicy of the Service `cart`.
fn policy(action: &str, rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: of-cart, namespace: shop}}\n\
         spec: {{targetRefs: [{{kind: Service, name: cart}}], action: {action}, rules: [{rules}]}}\n---\n"
    )
}

pub(crate) async fn client(world: &World) -> Client {
    Client::http1(world.tunnel("10.96.0.1:80").await.expect("tunnel")).await
}

/// Asks with these header fields.
pub(crate) async fn ask(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> Answer {
    let request = fields
        .iter()
        .fold(Request::get(path).header("host", "cart.shop"), |request, (name, value)| request.header(*name, *value));
    client.ask(request.body(Full::default()).expect("valid")).await
}

/// Asks with a token.
pub(crate) async fn ask_as(client: &mut Client, token: &str) -> Answer {
    ask(client, "/", &[("authorization", &format!("Bearer {token}"))]).await
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[test]
fn only_a_token_of_the_issuer_for_us_and_now_is_believed() {
    let (issuer, stranger) = (Issuer::new("one"), Issuer::new("one"));
    let manifests = authentication(&inline(&issuer), "    audiences: [shop]");
    run_with(&manifests, async move |world| {
        let cart = serve(CARTS[0], 8080, false).await;
        for address in &CARTS[1..] {
            serve(address, 8080, false).await;
        }
        let mut client = client(&world).await;
        assert_eq!(ask_as(&mut client, &issuer.token(&alice())).await.status, 200);
        assert_eq!(client.get("/").await.status, 200, "without a token it is nobody's, and policies decide");
        let key = hmac::Key::new(hmac::HMAC_SHA256, issuer.key()["x"].as_str().expect("text").as_bytes());
        let by_secret = {
            let signed = format!("{}.{}", b64(r#"{"alg":"HS256","kid":"one"}"#), b64(alice().to_string()));
            format!("{signed}.{}", b64(hmac::sign(&key, signed.as_bytes())))
        };
        let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(alice().to_string()));
        let claims_of_other = issuer.token(&alice()).replace(&b64(alice().to_string()), &b64("{}"));
        let refused = [
            (issuer.token(&with(alice(), "exp", json!(now() - 61))), 401, "Jwt is expired"),
            (issuer.token(&with(alice(), "nbf", json!(now() + 120))), 401, "Jwt not yet valid"),
            (issuer.token(&with(alice(), "aud", json!("bank"))), 403, "Audiences in Jwt are not allowed"),
            (issuer.token(&with(alice(), "iss", json!("https://other"))), 401, "Jwt issuer is not configured"),
            (stranger.token(&alice()), 401, "Jwt verification fails"),
            (claims_of_other, 401, "Jwt issuer is not configured"),
            (by_secret, 401, "Jwt header [alg] is not supported"),
            (unsigned, 401, "Jwt header [alg] is not supported"),
            (
                issuer.signed(&json!({"alg": "ES256", "kid": "two"}), &alice()),
                401,
                "Jwks doesn't have key to match kid or alg from Jwt",
            ),
            (issuer.token(&with(alice(), "x", json!("y".repeat(30_000)))), 401, "Jwt is too long"),
            (
                "garbage".to_owned(),
                401,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
        ];
        let passed = cart.seen.borrow().len();
        for (token, status, text) in &refused {
            let answer = ask_as(&mut client, token).await;
            assert_eq!((answer.status, &answer.body[..]), (*status, text.as_bytes()), "{text}");
            let challenge = answer.headers["www-authenticate"].to_str().expect("text");
            assert_eq!(challenge, "Bearer realm=\"http://cart.shop/\", error=\"invalid_token\"");
        }
        assert_eq!(cart.seen.borrow().len(), passed, "nothing of that reached the Service");
        // Within the minute that clocks may be apart.
        let late = issuer.token(&with(alice(), "exp", json!(now() - 30)));
        assert_eq!(ask_as(&mut client, &late).await.status, 200);
        world.logged(&format!("\"request_principal\":\"{ISSUER}/alice\"")).await;
        world.logged("\"token_refused\":\"expired\"").await;
        world.logged("\"token_refused\":\"unsupported\"").await;
    });
}

#[test]
fn policies_judge_by_the_verified_token() {
    let issuer = Issuer::new("one");
    let rule = format!(
        "{{from: [{{source: {{requestPrincipals: [\"{ISSUER}/alice\"]}}}}], when: [\
         {{key: \"request.auth.claims[groups]\", values: [staff]}}, {{key: request.auth.audiences, values: [shop]}}]}}"
    );
    let manifests = authentication(&inline(&issuer), "") + &policy("ALLOW", &rule);
    run_with(&manifests, async move |world| {
        serve_carts().await;
        let mut client = client(&world).await;
        assert_eq!(ask_as(&mut client, &issuer.token(&alice())).await.status, 200);
        for (name, value) in
            [("sub", json!("bob")), ("groups", json!(["guests"])), ("aud", json!("bank")), ("sub", json!(null))]
        {
            let mut claims = with(alice(), name, value.clone());
            if value.is_null() {
                claims.as_object_mut().expect("object").remove(name);
            }
            assert_eq!(ask_as(&mut client, &issuer.token(&claims)).await.status, 403, "{name}: {value}");
        }
        let answer = client.get("/").await;
        assert_eq!((answer.status, &answer.body[..]), (403, &b"RBAC: access denied"[..]), "no token, no principal");
        assert_eq!(ask_as(&mut client, "garbage").await.status, 401, "before any policy");
        // Whoever has no token at all is denied; the others pass.
        world.configure(
            &(authentication(&inline(&issuer), "")
                + &policy("DENY", "{from: [{source: {notRequestPrincipals: [\"*\"]}}]}")),
        );
        while ask_as(&mut client, &issuer.token(&with(alice(), "sub", json!("bob")))).await.status != 200 {}
        assert_eq!(client.get("/").await.status, 403);
    });
}

/// Three carts, and the head of the last request that came to any of them.
struct Carts(Vec<Rc<Backend>>);

impl Carts {
    async fn serve() -> Self {
        let carts = serve_carts().await;
        Self(carts)
    }

    fn last(&self) -> Parts {
        let mut seen: Vec<Parts> = self.0.iter().flat_map(|cart| cart.seen.take()).collect();
        seen.pop().expect("a request came through")
    }
}

/// What destinations are to be shown.
const SHOWN: &str = "    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: X-User, claim: sub}, {header: x-city, claim: home.city}]";

#[test]
fn destinations_see_the_claims_that_rules_show_and_no_other() {
    let issuer = Issuer::new("one");
    run_with(&authentication(&inline(&issuer), SHOWN), async move |world| {
        let (carts, mut client) = (Carts::serve().await, client(&world).await);
        let claims = with(alice(), "home", json!({"city": "Bern"}));
        let token = issuer.token(&claims);
        let bearer = format!("Bearer {token}");
        let forged = [("x-payload", "forged"), ("x-user", "root"), ("x-city", "Rome")];
        let with_token: Vec<_> = forged.into_iter().chain([("authorization", &*bearer)]).collect();
        assert_eq!(ask(&mut client, "/a?b=1", &with_token).await.status, 200);
        let seen = carts.last();
        let shown = ["x-payload", "x-user", "x-city"].map(|name| seen.headers[name].to_str().expect("text").to_owned());
        assert_eq!(shown, [b64(claims.to_string()), "alice".to_owned(), "Bern".to_owned()]);
        assert!(!seen.headers.contains_key("authorization"), "the token stays behind");
        assert_eq!(ask(&mut client, "/", &forged).await.status, 200);
        let seen = carts.last();
        for (name, _) in forged {
            assert!(!seen.headers.contains_key(name), "{name} is not the client's to say");
        }
        // By the other usual place; and what else is in the query goes on.
        assert_eq!(ask(&mut client, &format!("/a?b=1&access_token={token}"), &[]).await.status, 200);
        let seen = carts.last();
        assert_eq!((seen.uri.to_string().as_str(), seen.headers["x-user"].as_bytes()), ("/a?b=1", &b"alice"[..]));
    });
}

#[test]
fn tokens_are_found_where_the_rule_says_and_go_on_if_it_says_so() {
    let issuer = Issuer::new("one");
    let own = "    fromHeaders: [{name: X-Token, prefix: 'JWT '}]\n    fromParams: [t]\n    fromCookies: [session]\n    \
               forwardOriginalToken: true\n";
    run_with(&authentication(&inline(&issuer), &format!("{own}{SHOWN}")), async move |world| {
        let (carts, mut client) = (Carts::serve().await, client(&world).await);
        let token = issuer.token(&alice());
        let (value, cookie) = (format!("JWT {token}"), format!("theme=dark; session={token}"));
        for (path, field) in [
            ("/".to_owned(), ("x-token", &*value)),
            (format!("/?t={token}"), ("x-other", "1")),
            ("/".to_owned(), ("cookie", &*cookie)),
        ] {
            assert_eq!(ask(&mut client, &path, &[field]).await.status, 200);
            let seen = carts.last();
            assert_eq!((seen.uri.to_string(), seen.headers[field.0].as_bytes()), (path, field.1.as_bytes()));
            assert_eq!(seen.headers["x-user"], "alice");
        }
        assert_eq!(ask_as(&mut client, "garbage").await.status, 200, "there is no place for tokens");
        assert_eq!(carts.last().headers["authorization"], "Bearer garbage");
        assert_eq!(ask(&mut client, "/", &[("cookie", "session=garbage")]).await.status, 401);
        world.configure(&authentication(&inline(&issuer), &own.replace("true", "false")));
        let everywhere = [("x-token", &*value), ("cookie", &cookie)];
        while {
            assert_eq!(ask(&mut client, &format!("/?a=1&t={token}"), &everywhere).await.status, 200);
            let seen = carts.last();
            let stays = seen.headers.contains_key("x-token");
            assert!(stays || (seen.uri == "/?a=1" && seen.headers["cookie"] == "theme=dark"), "{seen:?}");
            stays
        } {}
    });
}

#[test]
fn any_of_several_issuers_may_vouch() {
    let (one, two) = (Issuer::new("one"), Issuer::new("two"));
    let second = format!("  - issuer: https://two\n    jwks: '{}'", two.keys());
    run_with(&authentication(&inline(&one), &second), async move |world| {
        serve_carts().await;
        let mut client = client(&world).await;
        let of_two = with(alice(), "iss", json!("https://two"));
        assert_eq!(ask_as(&mut client, &one.token(&alice())).await.status, 200);
        assert_eq!(ask_as(&mut client, &two.token(&of_two)).await.status, 200);
        let answer = ask_as(&mut client, &one.token(&of_two)).await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (401, &b"Jwks doesn't have key to match kid or alg from Jwt"[..])
        );
        let answer = ask_as(&mut client, &one.token(&with(alice(), "iss", json!("https://three")))).await;
        assert_eq!((answer.status, &answer.body[..]), (401, &b"Jwt issuer is not configured"[..]));
    });
}

#[test]
fn gateways_read_tokens_and_lead_by_their_claims() {
    let issuer = Issuer::new("one");
    let listener = "{name: http, port: 8000, protocol: HTTP}";
    let manifests = format!(
        "{}apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: of-pods, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{istio: ingressgateway}}}}\n  jwtRules: [{{issuer: {ISSUER}, {}}}]\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: at-edge, namespace: shop}}\n\
         spec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]\n  \
         rules: [{{from: [{{source: {{requestPrincipals: ['*']}}}}]}}]\n---\n{BY_CLAIM}",
        gateway(listener),
        inline(&issuer)
    );
    run_as(GATEWAY, &manifests, async move |world| {
        serve(OUTSIDE, 8080, false).await;
        let carts = Carts::serve().await;
        let status = async |url: &str, token: Option<&str>| {
            // Without a value curl leaves the field out.
            let field = token.map_or("authorization:".to_owned(), |token| format!("authorization: Bearer {token}"));
            get(url, &["--header", &field]).await
        };
        let (any, claims) = ("http://any.example:8000/", "http://claims.example:8010/");
        assert_eq!(status(any, None).await.0, "403", "the policy asks for a token");
        assert_eq!(status(any, Some("garbage")).await.0, "401");
        assert_eq!(status(any, Some(&issuer.token(&alice()))).await, ("200".into(), OUTSIDE.into()));
        let admin = with(alice(), "realm", json!({"roles": ["reader", "admin"]}));
        let (found, backend) = status(claims, Some(&issuer.token(&admin))).await;
        assert!(found == "200" && CARTS.contains(&&*backend), "{found} {backend}");
        assert!(!carts.last().headers.contains_key("authorization"));
        assert_eq!(status(claims, Some(&issuer.token(&alice()))).await, ("200".into(), OUTSIDE.into()));
        drop(world);
    });
}

/// Administrators get to `cart`, and others to `outside`.
const BY_CLAIM: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: claims, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8010, name: http, protocol: HTTP}, hosts: ['claims.example']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: claims, namespace: shop}
spec:
  hosts: [claims.example]
  gateways: [claims]
  http:
  - match: [{headers: {'@request.auth.claims[realm][roles]': {exact: admin}, '@request.auth.claims.sub': {prefix: ali}}}]
    route: [{destination: {host: cart, port: {number: 80}}}]
  - route: [{destination: {host: outside, port: {number: 80}}}]
";
