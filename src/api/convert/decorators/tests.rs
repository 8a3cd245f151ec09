//! What becomes of decorators of both groups.

use ringmaster_core::dialect::Dialect;
use serde_json::Value;

use super::super::decorator_from_json;
use super::*;

fn object(resources: &Value) -> Value {
    json!({
        "metadata": { "name": "notes", "uid": "u", "generation": 2 },
        "spec": {
            "resources": resources,
            "attachments": [{ "apiVersion": "v1", "resource": "configmaps" }],
            "hooks": { "sync": { "webhook": { "service": { "name": "hook", "namespace": "shop" } } } },
        },
    })
}

fn two() -> Value {
    json!([
        { "apiVersion": "apps/v1", "resource": "deployments", "labelSelector": { "matchLabels": { "app": "x" } } },
        { "apiVersion": "v1", "resource": "services", "annotationSelector": { "matchAnnotations": { "note": "on" } } },
    ])
}

fn convert(dialect: &'static Dialect, mut object: Value) -> Result<Converted, Error> {
    object["apiVersion"] = json!(format!("{}/v1alpha1", dialect.group));
    object["kind"] = json!("DecoratorController");
    decorator_from_json(dialect, serde_json::to_vec(&object).unwrap().into(), &core::Apply::Merge)
}

#[test]
fn each_target_is_a_controller_of_the_same_name() {
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        let Converted { controllers, warnings } = convert(dialect, object(&two())).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let [first, second] = &controllers[..] else { panic!("{controllers:?}") };
        for (target, controller) in [first, second].into_iter().enumerate() {
            assert_eq!((&*controller.name, controller.generation), ("notes", 2));
            assert_eq!(controller.role, Role::Decorator { target });
            assert_eq!(controller.parent_field(), format!("spec.resources[{target}]"));
            assert_eq!(&*controller.label(), "decoratorcontrollers/notes");
            assert_eq!(controller.children.len(), 1);
            assert_eq!(controller.uid, first.uid);
        }
        assert_eq!((&*first.parent.resource, &*second.parent.resource), ("deployments", "services"));
        assert_eq!(first.parent.selector, Selector::parse("app=x").unwrap());
        assert!(first.parent.annotations.is_everything() && second.parent.selector.is_everything());
        assert_eq!(second.parent.annotations, Selector::parse("note=on").unwrap());
        assert_eq!(first.parent.ignore_status_changes, dialect.ignore_status_changes);
    }
}

#[test]
fn a_kind_that_stands_twice_is_refused_or_replaced() {
    let twice = json!([
        { "apiVersion": "apps/v1", "resource": "deployments" },
        { "apiVersion": "v1", "resource": "services" },
        { "apiVersion": "apps/v1beta1", "resource": "deployments", "labelSelector": { "matchLabels": { "app": "x" } } },
    ]);
    let refused = convert(&RINGMASTER, object(&twice)).unwrap_err();
    assert_eq!(refused.field, "spec.resources[2]");
    let Converted { controllers, warnings } = convert(&METACONTROLLER, object(&twice)).unwrap();
    assert_eq!(controllers.len(), 2);
    assert_eq!(controllers[0].role, Role::Decorator { target: 2 });
    assert_eq!(controllers[0].parent.selector, Selector::parse("app=x").unwrap());
    assert!(warnings[0].starts_with("spec.resources[2]: names deployments again"), "{warnings:?}");
}

#[test]
fn what_is_wrong_is_told_by_its_field() {
    let all = json!([{ "apiVersion": "v1", "resource": "configmaps" }]);
    let with = |pointer: &str, value: Value| {
        let mut object = object(&two());
        *object.pointer_mut(pointer).unwrap() = value;
        object
    };
    let expression = json!([{ "key": "a", "operator": "Like", "values": ["b"] }]);
    for (object, both, field) in [
        (object(&json!([])), true, "spec.resources"),
        (object(&all), false, "spec.attachments[0]"),
        (with("/spec/resources/1/resource", json!("Service")), true, "spec.resources[1].resource"),
        (with("/spec/resources/0/apiVersion", json!("")), true, "spec.resources[0].apiVersion"),
        (
            with("/spec/resources/1/annotationSelector", json!({ "matchAnnotations": { "a b": "c" } })),
            true,
            "spec.resources[1].annotationSelector",
        ),
        (
            with("/spec/resources/1/annotationSelector", json!({ "matchExpressions": expression })),
            true,
            "spec.resources[1].annotationSelector",
        ),
        (with("/spec/attachments/0/resource", json!("")), true, "spec.attachments[0].resource"),
        (with("/spec/hooks", json!({})), true, "spec.hooks.sync"),
    ] {
        for dialect in [&RINGMASTER, &METACONTROLLER] {
            let found = convert(dialect, object.clone());
            if both || dialect.group == RINGMASTER.group {
                assert_eq!(found.unwrap_err().field, field, "{object}");
            } else {
                found.unwrap();
            }
        }
    }
    let bad = with("/spec/resources/1/annotationSelector", json!({ "matchAnnotations": { "a b": "c" } }));
    assert!(convert(&RINGMASTER, bad).unwrap_err().message.contains("matchAnnotations"));
}

#[test]
fn rolling_methods_are_what_they_are_named_after_in_metacontrollers_group() {
    let mut rolling = object(&two());
    for (method, strategy) in [
        ("RollingRecreate", core::UpdateStrategy::Recreate),
        ("RollingInPlace", core::UpdateStrategy::InPlace),
        ("InPlace", core::UpdateStrategy::InPlace),
        ("", core::UpdateStrategy::OnDelete),
    ] {
        rolling["spec"]["attachments"][0]["updateStrategy"] = json!({ "method": method });
        let Converted { controllers, warnings } = convert(&METACONTROLLER, rolling.clone()).unwrap();
        assert_eq!(controllers[0].children[0].strategy, strategy, "{method}");
        let told = warnings.iter().any(|warning| warning.starts_with("spec.attachments[0].updateStrategy.method: "));
        assert_eq!(told, method.starts_with("Rolling"), "{warnings:?}");
    }
    rolling["spec"]["attachments"][0]["updateStrategy"] = json!({ "method": "RollingInPlace" });
    assert!(convert(&RINGMASTER, rolling).is_err());
}
