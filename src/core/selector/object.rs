//! A selector in its object form again, for where Kubernetes reads one.

use serde_json::{Value, json};

use super::{Requirement, Selector, Test};

impl Selector {
    /// The object form, which [`Self::from_json`] reads back as the same selector; everything is `{}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        if self.is_everything() {
            return json!({});
        }
        let expressions: Vec<Value> = self.requirements.iter().map(Requirement::to_json).collect();
        json!({"matchExpressions": expressions})
    }
}

impl Requirement {
    fn to_json(&self) -> Value {
        let key = &*self.key;
        match &self.test {
            Test::In(values) => json!({"key": key, "operator": "In", "values": values}),
            Test::NotIn(values) => json!({"key": key, "operator": "NotIn", "values": values}),
            Test::Exists => json!({"key": key, "operator": "Exists"}),
            Test::DoesNotExist => json!({"key": key, "operator": "DoesNotExist"}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_form_is_read_back_as_the_same() {
        for text in ["", "a=b", "a in (b,c),d notin (e,),example.com/f,!g"] {
            let selector = Selector::parse(text).unwrap();
            assert_eq!(Selector::from_json(&selector.to_json()), Ok(selector), "{text}");
        }
        let one = Selector::parse("a!=b").unwrap().to_json();
        assert_eq!(one, json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}));
        assert_eq!(Selector::everything().to_json(), json!({}));
    }
}
