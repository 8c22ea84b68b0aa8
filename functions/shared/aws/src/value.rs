//! JSON documents as DynamoDB's native values and back, with every number as it was.
//!
//! By hand, because the usual conversion returns `1.0` as `1`: the store keeps numbers as decimals without a
//! type, of 38 digits and within 1e-130 to 1e126. Integers and fractions inside that survive as numbers (`N`).
//! A float that would come back as something else (1.0, -0.0, 1e300) is kept as a string set of one (`SS`),
//! a type that JSON does not have, so that nothing else can look like it.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Number, Value};

/// The attribute for a JSON value.
pub(crate) fn to_attribute(value: Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(flag) => AttributeValue::Bool(flag),
        Value::Number(number) => from_number(&number),
        Value::String(text) => AttributeValue::S(text),
        Value::Array(list) => AttributeValue::L(list.into_iter().map(to_attribute).collect()),
        Value::Object(map) => AttributeValue::M(to_map(map)),
    }
}

fn to_map(map: Map<String, Value>) -> HashMap<String, AttributeValue> {
    map.into_iter().map(|(name, value)| (name, to_attribute(value))).collect()
}

fn from_number(number: &Number) -> AttributeValue {
    let text = number.to_string();
    if number.is_f64() && !number.as_f64().is_some_and(survives) {
        return AttributeValue::Ss(vec![text]);
    }
    AttributeValue::N(text)
}

/// A float with a fraction and a magnitude that the store takes comes back as the same float: it has at most 17
/// digits, and 38 are kept. The bounds stand well inside the store's own (1e-130, 9.99e125).
fn survives(float: f64) -> bool {
    float.fract() != 0.0 && (1e-100..1e100).contains(&float.abs())
}

/// The JSON value of an attribute; `None` if it is none that [`to_attribute`] makes.
pub(crate) fn from_attribute(value: AttributeValue) -> Option<Value> {
    Some(match value {
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::Bool(flag) => Value::Bool(flag),
        AttributeValue::N(text) => Value::Number(to_number(&text)?),
        AttributeValue::Ss(texts) => Value::Number(Number::from_f64(texts.first()?.parse().ok()?)?),
        AttributeValue::S(text) => Value::String(text),
        AttributeValue::L(list) => Value::Array(list.into_iter().map(from_attribute).collect::<Option<_>>()?),
        AttributeValue::M(map) => Value::Object(
            map.into_iter().map(|(name, value)| Some((name, from_attribute(value)?))).collect::<Option<_>>()?,
        ),
        _ => return None,
    })
}

fn to_number(text: &str) -> Option<Number> {
    if let Ok(natural) = text.parse::<u64>() {
        return Some(natural.into());
    }
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            (-1000i32..1000).prop_map(|n| Value::from(f64::from(n))),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_value_comes_back_as_it_was(value in json_value()) {
            prop_assert_eq!(from_attribute(to_attribute(value.clone())), Some(value));
        }
    }

    #[test]
    fn numbers_keep_their_kind() {
        for value in [
            json!(0),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1.0),
            json!(-0.0),
            json!(0.1),
            json!(1.5e-7),
            json!(1e300),
            json!(f64::MIN_POSITIVE),
        ] {
            let back = from_attribute(to_attribute(value.clone())).expect("a value");
            assert_eq!(back.to_string(), value.to_string());
            assert_eq!(back, value);
        }
    }

    #[test]
    fn a_foreign_attribute_is_no_json() {
        assert_eq!(from_attribute(AttributeValue::Ns(vec!["1".to_owned()])), None);
        assert_eq!(from_attribute(AttributeValue::N("many".to_owned())), None);
    }
}
