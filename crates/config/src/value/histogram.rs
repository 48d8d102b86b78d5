//! Summaries of durations.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::time::Span;
use crate::schema_as;

/// A quantile, and the text that its metric is tagged with.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantile {
    /// From 0 to 1.
    pub value: f64,
    /// As written.
    pub tag: Box<str>,
}

impl Quantile {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let value = text.parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
        Some(Self {
            value,
            tag: text.into(),
        })
    }
}

impl<'de> Deserialize<'de> for Quantile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "config::shape", rename_all = "snake_case")]
        enum Form {
            Float(String),
            Str(String),
        }

        let (Form::Float(text) | Form::Str(text)) = Form::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom(format!("expected a quantile from 0.0 to 1.0, found `{text}`")))
    }
}

impl JsonSchema for Quantile {
    fn schema_name() -> Cow<'static, str> {
        "Quantile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": ["string", "number"], "minimum": 0, "maximum": 1})
    }
}

/// A summary of durations: which quantiles are told, over how long.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "HistogramForm")]
pub struct HistogramMetrics {
    /// The quantiles; never empty.
    pub quantile: Vec<Quantile>,
    /// The time after which old durations are forgotten.
    pub rotate: Span,
}

schema_as!(HistogramMetrics => HistogramForm);

const DEFAULT_QUANTILES: [&str; 5] = ["0.50", "0.80", "0.90", "0.95", "0.99"];

impl Default for HistogramMetrics {
    fn default() -> Self {
        Self {
            quantile: DEFAULT_QUANTILES
                .iter()
                .filter_map(|text| Quantile::parse(text))
                .collect(),
            rotate: Span::secs(4),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "HistogramMetrics")]
enum HistogramForm {
    Map(HistogramMap),
    Other(Span),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistogramMap {
    quantile: Option<Quantiles>,
    rotate: Option<Span>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged)]
enum Quantiles {
    Seq(Vec<Quantile>),
    Str(CommaSeparated),
}

#[derive(Deserialize, JsonSchema)]
#[serde(try_from = "String")]
struct CommaSeparated(#[schemars(with = "String")] Vec<Quantile>);

impl TryFrom<String> for CommaSeparated {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parsed = parts.map(|part| {
            Quantile::parse(part).ok_or_else(|| format!("expected quantiles from 0.0 to 1.0, found `{part}`"))
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }
}

impl From<HistogramForm> for HistogramMetrics {
    fn from(form: HistogramForm) -> Self {
        let default = Self::default();
        match form {
            HistogramForm::Other(rotate) => Self { rotate, ..default },
            HistogramForm::Map(HistogramMap { quantile, rotate }) => {
                let quantile = match quantile {
                    Some(Quantiles::Seq(quantiles) | Quantiles::Str(CommaSeparated(quantiles))) => quantiles,
                    None => Vec::new(),
                };
                Self {
                    quantile: if quantile.is_empty() {
                        default.quantile
                    } else {
                        quantile
                    },
                    rotate: rotate.unwrap_or(default.rotate),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    fn tags(yaml: &str) -> Vec<String> {
        decode::<HistogramMetrics>(yaml)
            .unwrap()
            .quantile
            .iter()
            .map(|quantile| quantile.tag.to_string())
            .collect()
    }

    #[test]
    fn quantiles_keep_their_text() {
        assert_eq!(tags("{quantile: [0.50, '0.9', 0.999]}"), ["0.50", "0.9", "0.999"]);
        assert_eq!(tags("{quantile: '0.5, 0.90'}"), ["0.5", "0.90"]);
        assert_eq!(tags("{quantile: []}"), DEFAULT_QUANTILES);
        assert_eq!(tags("{}"), DEFAULT_QUANTILES);
        assert_eq!(decode::<HistogramMetrics>("30s").unwrap().rotate, Span::secs(30));
        for yaml in [
            "{quantile: [1]}",
            "{quantile: [1.1]}",
            "{quantile: [x]}",
            "{quantile: '0.5,x'}",
            "[]",
            "{q: 1}",
        ] {
            assert!(decode::<HistogramMetrics>(yaml).is_err(), "{yaml}");
        }
    }
}
