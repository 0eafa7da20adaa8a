//! An assertion is taken once: at once, over a restart, over a kill, and over two processes.

use super::serve;
use super::signer::{Signer, ask_with, refused};
use crate::run::scratch;

/// AUTH-07: a replay is refused, at once, after a stop and after a kill; a wrong scope does not use an assertion up.
#[test]
fn an_assertion_is_taken_once() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let server = serve(scratch.path(), "", &signer.inline(""));
    let (first, second, third) = (signer.assertion(), signer.assertion(), signer.assertion());
    refused(&ask_with(&server.client(), &first, "system/Patient.xyz"), 400, "invalid_scope");
    assert_eq!(ask_with(&server.client(), &first, "system/*.rs").status, 200);
    refused(&ask_with(&server.client(), &first, "system/*.rs"), 400, "invalid_client");
    server.wait_for_log("reason=Repeated");
    assert_eq!(ask_with(&server.client(), &second, "system/*.rs").status, 200);
    server.kill();
    let server = serve(scratch.path(), "", &signer.inline(""));
    for used in [&first, &second] {
        refused(&ask_with(&server.client(), used, "system/*.rs"), 400, "invalid_client");
    }
    assert_eq!(ask_with(&server.client(), &third, "system/*.rs").status, 200);
    assert_eq!(server.stop(), Some(0));
    let server = serve(scratch.path(), "", &signer.inline(""));
    refused(&ask_with(&server.client(), &third, "system/*.rs"), 400, "invalid_client");
}

/// A token outlives a restart, and an expired one is told so.
#[test]
fn tokens_outlive_a_restart() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let server = serve(scratch.path(), "", &signer.inline(""));
    let token = signer.token(&server.client(), "system/*.rs");
    server.kill();
    let server = serve(scratch.path(), "", &signer.inline(""));
    assert_eq!(super::with_token(&server.client(), &token, "GET", "/fhir/Group").status, 200);
}

/// AUTH-07: of two processes that share a directory of used assertions, one takes an assertion; the documented switch lets an
/// assertion be used again.
#[test]
fn two_processes_share_used_assertions() {
    let (one, other, shared) = (scratch(), scratch(), scratch());
    let signer = Signer::new("a", "ES384");
    let jti_dir = format!("jti_dir = '{}'", shared.path().join("jti").display());
    let servers = [&one, &other].map(|directory| serve(directory.path(), &jti_dir, &signer.inline("")));
    for round in 0..6 {
        let assertion = signer.assertion();
        assert_eq!(ask_with(&servers[round % 2].client(), &assertion, "system/*.rs").status, 200);
        for server in &servers {
            refused(&ask_with(&server.client(), &assertion, "system/*.rs"), 400, "invalid_client");
        }
    }
    let scratch = scratch();
    let server = serve(scratch.path(), "assertion_reuse = true", &signer.inline(""));
    let assertion = signer.assertion();
    for _ in 0..3 {
        assert_eq!(ask_with(&server.client(), &assertion, "system/*.rs").status, 200);
    }
    server.wait_for_log("smart.assertion_reuse is on");
}

/// A use that cannot be recorded gives no token: 503, and a token once it can be.
#[test]
fn without_a_record_there_is_no_token() {
    let scratch = scratch();
    let signer = Signer::new("a", "ES384");
    let server = serve(scratch.path(), "", &signer.inline(""));
    let kept = scratch.path().join("data/smart/assertions");
    std::fs::remove_dir(&kept).unwrap();
    let answer = signer.ask(&server.client(), "system/*.rs");
    refused(&answer, 503, "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    std::fs::create_dir(&kept).unwrap();
    assert_eq!(signer.ask(&server.client(), "system/*.rs").status, 200);
}
