//! The kinds that may have labels of a ring, as an annotation of the ring keeps them: also those that it named once, until
//! none of their objects has a label any more.
//!
//! Never reads an object. What can't be read names no kind.

use serde::{Deserialize, Serialize};

use super::model::{GroupResource, MainResource, Ring};

/// The annotation.
pub const KEPT: &str = "ringmaster.dev/ring-resources";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Main {
    #[serde(flatten)]
    kind: Named,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    controlled_resources: Vec<Named>,
}

#[derive(Deserialize, Serialize)]
struct Named {
    group: String,
    resource: String,
}

/// The annotation's text: as `spec.resources` has them.
#[must_use]
pub fn text(resources: &[MainResource]) -> String {
    let named = |kind: &GroupResource| Named { group: kind.group.to_string(), resource: kind.resource.to_string() };
    let main = |main: &MainResource| Main {
        kind: named(&main.resource),
        controlled_resources: main.controlled.iter().map(named).collect(),
    };
    // Texts always have a JSON form.
    serde_json::to_string(&resources.iter().map(main).collect::<Vec<_>>()).unwrap_or_default()
}

/// What the text names.
#[must_use]
pub fn read(text: &str) -> Vec<MainResource> {
    let named = |kind: Named| GroupResource::new(&kind.group, &kind.resource);
    let main = |main: Main| MainResource {
        resource: named(main.kind),
        controlled: main.controlled_resources.into_iter().map(named).collect(),
    };
    let mains: Vec<Main> = serde_json::from_str(text).unwrap_or_default();
    mains.into_iter().map(main).collect()
}

/// Of these, what has a kind that the ring doesn't name: they belong to it no more.
#[must_use]
pub fn former(kept: Vec<MainResource>, ring: &Ring) -> Vec<MainResource> {
    let kinds = ring.kinds();
    let is_left =
        |main: &MainResource| std::iter::once(&main.resource).chain(&main.controlled).any(|it| !kinds.contains(it));
    kept.into_iter().filter(is_left).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_back_from_their_text() {
        let kind = GroupResource::new;
        let resources = [
            MainResource { resource: kind("", "secrets"), controlled: vec![kind("", "configmaps"), kind("a.b", "cs")] },
            MainResource { resource: kind("shop.example", "sites"), controlled: Vec::new() },
        ];
        assert_eq!(read(&text(&resources)), resources);
        assert_eq!(
            text(&resources[1..]),
            r#"[{"group":"shop.example","resource":"sites"}]"#,
            "as spec.resources is written"
        );
        assert_eq!(read("nonsense"), []);
    }
}
