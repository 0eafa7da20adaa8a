//! Query strings: every route that reads one refuses the same things.

use super::job_lifecycle::bundled;
use super::vendors::{IG, MTE_DEFAULT, NETSMART, STE};
use crate::run::scratch;

/// CORE-04, CORE-08, PARAM-06: what no query may hold is refused by name at a search for Groups as at a kick-off, lenient or
/// not; both sides of the bound on parameters.
#[test]
fn queries_are_read_alike() {
    let scratch = scratch();
    let searchable = "groups_searchable = true\n";
    let toml = format!("[netsmart]\n{searchable}[oneup_ste]\n{searchable}[limits]\nhead_bytes = 200000\n");
    std::fs::write(scratch.path().join("serve.toml"), toml).unwrap();
    let server = bundled(scratch.path(), &["--config", "serve.toml"]);
    server.wait_until_ready();
    let client = server.client();
    for base in [IG, NETSMART, STE, MTE_DEFAULT] {
        for prefer in ["respond-async", "respond-async, handling=lenient"] {
            let headers = [("Accept", "application/fhir+json"), ("Prefer", prefer)];
            let ask = |path: &str, query: &str| client.ask("GET", &format!("{base}/{path}?{query}"), &headers, b"");
            for (query, named) in [
                ("name=%00", "name: "),
                ("name=a%0Ab", "name: "),
                ("name=%7f", "name: "),
                ("name=%C2%85", "name: "),
                ("na%00me=a", "na%00me: "),
                ("name=%zz", "name: "),
                ("name=%", "name: "),
                ("name=%ff", "name: "),
                ("_format=%00", "_format: "),
                ("_count=%01", "_count: "),
            ] {
                let texts = ["Group", "Group/ten/$export"].map(|path| {
                    let text = ask(path, query).outcome(400, "invalid");
                    assert!(text.contains(named), "{path} {query}: {text}");
                    text.lines().find(|line| line.starts_with(named)).map(str::to_string)
                });
                assert_eq!(texts[0], texts[1], "{query}");
            }
            let many = |count: usize| vec!["_id=ten"; count].join("&");
            assert_eq!(ask("Group", &many(1000)).json()["total"], 1);
            assert!(ask("Group", &many(1001)).outcome(400, "invalid").contains("1000 parameters"));
            let types = vec!["_type=Patient"; 1001].join("&");
            assert!(ask("Group/ten/$export", &types).outcome(400, "invalid").contains("1000 parameters"));
            // What is readable is not touched: a plus is a space, an encoded plus is a plus.
            assert_eq!(ask("Group", "name=no+such&name:contains=%2B&_id=ten").json()["total"], 0);
            assert_eq!(ask("Group", "&&_id=ten&").json()["total"], 1);
        }
    }
}
