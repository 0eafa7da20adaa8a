//! Tests of the rules for Groups whose members filters choose.

use serde_json::{Value as Tree, json};

use super::problems;
use crate::group::member_filter::FilteredGroups;
use crate::group::rules::{GroupContent, GroupRules, WantedId};
use crate::issue::IssueCode;

/// COHORT-02, COHORT-06, GROUP-10: a Group with filters must be as the IG's profile has it, and a filter one that can be evaluated, unless
/// such Groups are refused; with other modifiers it stays refused.
#[test]
fn filtered_groups_are_held_to_their_profile() {
    let filter = |url: &str, expression: &str| json!({"url": url, "valueExpression": {"language": "application/x-fhir-query", "expression": expression}});
    let url = crate::group::member_filter::MEMBER_FILTER;
    let whole = json!({
        "resourceType": "Group", "name": "n", "type": "person", "actual": false,
        "modifierExtension": [filter(url, "Patient?gender=male"), filter(url, "Condition?code=a")],
    });
    let found = |change: &dyn Fn(&mut Tree), rules: GroupRules| {
        let mut group = whole.clone();
        change(&mut group);
        problems(&group.to_string(), WantedId::Ignored, &rules)
    };
    let evaluating = GroupRules::default();
    let exportable = GroupRules { content: GroupContent::Exportable, ..evaluating };
    let member = json!([{"entity": {"reference": "Patient/a"}}]);
    let (business, unsupported) = (IssueCode::BusinessRule, IssueCode::NotSupported);
    type Change = Box<dyn Fn(&mut Tree)>;
    let set = |name: &'static str, value: Tree| -> Change { Box::new(move |group| group[name] = value.clone()) };
    let both = {
        let member = member.clone();
        Box::new(move |group: &mut Tree| (group["member"], group["actual"]) = (member.clone(), json!(true)))
    };
    let cases: [(Change, &[(IssueCode, &str)]); 13] = [
        (set("id", json!("g")), &[]),
        (both, &[]),
        (set("member", member), &[(business, "Group.actual")]),
        (set("member", json!([])), &[(business, "Group.actual")]),
        (set("actual", json!(true)), &[(business, "Group.actual")]),
        (set("type", json!("animal")), &[(business, "Group.type")]),
        (Box::new(|group| drop(group.as_object_mut().unwrap().remove("name"))), &[(business, "Group.name")]),
        (set("characteristic", json!([{}])), &[(business, "Group.characteristic")]),
        (
            set("extension", json!([{"url": crate::group::member_filter::MEMBERS_REFRESHED}])),
            &[(business, "Group.extension")],
        ),
        (set("implicitRules", json!("u")), &[(unsupported, "Group.implicitRules")]),
        (
            set("modifierExtension", json!([filter("u", "x"), filter(url, "Condition?nope=a")])),
            &[(unsupported, "Group.modifierExtension[1]"), (unsupported, "Group.modifierExtension")],
        ),
        (
            set(
                "modifierExtension",
                json!([{"url": ["u", url], "valueExpression": filter(url, "Patient?gender=male")["valueExpression"]}]),
            ),
            &[(unsupported, "Group.modifierExtension")],
        ),
        (
            set(
                "modifierExtension",
                json!([{"url": url, "valueExpression": [{"language": "application/x-fhir-query", "expression": 5}]}]),
            ),
            &[(unsupported, "Group.modifierExtension[0]")],
        ),
    ];
    for (change, expected) in cases {
        let expected: Vec<(IssueCode, String)> =
            expected.iter().map(|(kind, path)| (*kind, path.to_string())).collect();
        assert_eq!(found(&change, evaluating), expected);
        assert_eq!(found(&change, exportable), expected);
        let refusing = GroupRules { filtered: FilteredGroups::Refused, ..evaluating };
        assert!(found(&change, refusing).contains(&(unsupported, "Group.modifierExtension".to_string())));
    }
}
