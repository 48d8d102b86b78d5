//! Sets of CPUs, and which threads are bound to them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

use super::lists::OneOrMany;
use super::scalar::{Raw, Scalar, UNFIT, scalar};
use crate::{Misfit, schema_as};

/// One more than the largest CPU id that a kernel can be built for.
const MOST_CPUS: usize = 8192;

/// CPUs: `3`, `"0-3,8"`, or a list of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "OneOrMany<CpuList>")]
pub struct CpuSet(BTreeSet<usize>);

schema_as!(CpuSet => OneOrMany<CpuList>);

impl CpuSet {
    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    /// The set of one CPU.
    pub fn one(id: usize) -> Self {
        Self([id].into())
    }

    /// Reads `0-3,8`, as environment variables have it.
    pub fn parse(text: &str) -> Option<Self> {
        CpuList::parse(text)
            .map(|list| Self(list.0))
            .filter(|set| !set.0.is_empty())
    }
}

impl TryFrom<OneOrMany<CpuList>> for CpuSet {
    type Error = Misfit;

    fn try_from(lists: OneOrMany<CpuList>) -> Result<Self, Misfit> {
        let all: BTreeSet<usize> = lists.into_iter().flat_map(|list| list.0).collect();
        if all.is_empty() {
            Err(Misfit::new("expected at least one CPU"))
        } else {
            Ok(Self(all))
        }
    }
}

/// An element of a set of CPUs.
struct CpuList(BTreeSet<usize>);

impl CpuList {
    fn parse(text: &str) -> Option<Self> {
        let id = |text: &str| {
            let text = text.trim();
            let plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|id: &usize| plain && *id < MOST_CPUS)
        };
        let mut all = BTreeSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('-') {
                None => all.extend([id(part)?]),
                Some((start, end)) => {
                    let (start, end) = (id(start)?, id(end)?);
                    if start >= end {
                        return None;
                    }
                    all.extend(start..=end);
                }
            }
        }
        Some(Self(all))
    }
}

impl Scalar for CpuList {
    const EXPECTED: &'static str = "ids of CPUs such as `3` or `0-3,8`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(id) => {
                let id = usize::try_from(id).ok().filter(|id| *id < MOST_CPUS).ok_or(UNFIT)?;
                Ok(Self([id].into()))
            }
            Raw::Str(text) => Self::parse(text).ok_or(UNFIT),
            _ => Err(UNFIT),
        }
    }
}

scalar!(CpuList, {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": r"^[0-9]+(-[0-9]+)?(\s*,\s*[0-9]+(-[0-9]+)?)*$"},
    ],
});

/// Which worker runtimes are bound to which CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "AffinityForm")]
pub enum SchedAffinity {
    /// By environment variables, or each to its own.
    Auto,
    /// By the runtime's index.
    Map(BTreeMap<usize, CpuSet>),
    /// To none.
    #[default]
    Off,
}

schema_as!(SchedAffinity => AffinityForm);

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "SchedAffinity")]
enum AffinityForm {
    Map(#[schemars(with = "BTreeMap<String, CpuSet>")] BTreeMap<usize, CpuSet>),
    Scalar(bool),
}

impl From<AffinityForm> for SchedAffinity {
    fn from(form: AffinityForm) -> Self {
        match form {
            AffinityForm::Map(map) => Self::Map(map),
            AffinityForm::Scalar(true) => Self::Auto,
            AffinityForm::Scalar(false) => Self::Off,
        }
    }
}

/// Why runtimes cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AffinityError {
    /// A variable holds no list of CPUs.
    #[error("the variable `{name}` holds `{value}`, which is no list of CPUs such as `0-3,8`")]
    Variable {
        /// Its name.
        name: String,
        /// What it holds.
        value: String,
    },
    /// Several threads share a runtime, and no variable says where.
    #[error("`sched_affinity: true` needs one thread per runtime, or variables `WORKER_<N>_CPU_LIST`")]
    SharedRuntimes,
}

/// What runtimes are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bindings {
    /// For each runtime the CPUs, if it is bound.
    pub sets: Vec<Option<CpuSet>>,
    /// Whether there are more runtimes than CPUs, so that some share one.
    pub wraps: bool,
}

impl SchedAffinity {
    /// Binds `runtimes` of `threads_each` on the CPUs of these ids, with environment variables read by `variable`.
    ///
    /// # Errors
    /// [`AffinityError`] if that is not possible.
    pub fn bind(
        &self,
        runtimes: usize,
        threads_each: usize,
        cpus: &[usize],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Bindings, AffinityError> {
        let mut sets = vec![None; runtimes];
        match self {
            Self::Off => {}
            Self::Map(map) => {
                for (slot, index) in sets.iter_mut().zip(0..) {
                    *slot = map.get(&index).cloned();
                }
            }
            Self::Auto => {
                for (slot, index) in sets.iter_mut().zip(0..) {
                    *slot = from_variable(index, &variable)?;
                }
                if sets.iter().all(Option::is_none) {
                    if threads_each > 1 {
                        return Err(AffinityError::SharedRuntimes);
                    }
                    let wraps = runtimes > cpus.len();
                    let turn = cpus.iter().cycle().map(|id| Some(CpuSet::one(*id)));
                    return Ok(Bindings {
                        sets: turn.take(runtimes).collect(),
                        wraps,
                    });
                }
            }
        }
        Ok(Bindings { sets, wraps: false })
    }
}

fn from_variable(index: usize, variable: impl Fn(&str) -> Option<String>) -> Result<Option<CpuSet>, AffinityError> {
    let name = format!("WORKER_{index}_CPU_LIST");
    let Some(value) = variable(&name) else { return Ok(None) };
    CpuSet::parse(&value)
        .map(Some)
        .ok_or(AffinityError::Variable { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    fn ids(yaml: &str) -> Result<Vec<usize>, String> {
        decode::<CpuSet>(yaml).map(|set| set.ids().collect())
    }

    #[test]
    fn cpus_are_numbers_ranges_and_lists_of_them() {
        assert_eq!(ids("3"), Ok(vec![3]));
        assert_eq!(ids("'3'"), Ok(vec![3]));
        assert_eq!(ids("0-3"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(ids("'0-1,,8, 10-11'"), Ok(vec![0, 1, 8, 10, 11]));
        assert_eq!(ids("[0, '4-5']"), Ok(vec![0, 4, 5]));
        for yaml in [
            "3-0",
            "3-3",
            "-1",
            "a",
            "[]",
            "''",
            "0-99999999",
            "8192",
            "1.5",
            "true",
            "{}",
            "'+1'",
        ] {
            assert!(ids(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn affinity_is_a_switch_or_a_map() {
        assert_eq!(decode("true"), Ok(SchedAffinity::Auto));
        assert_eq!(decode("no"), Ok(SchedAffinity::Off));
        let map = decode::<SchedAffinity>("{0: 3, 1: 0-1, '2': [5]}").unwrap();
        let bindings = map.bind(4, 1, &[], |_| None).unwrap();
        let shown: Vec<_> = bindings
            .sets
            .iter()
            .map(|set| set.as_ref().map(|set| set.ids().collect::<Vec<_>>()))
            .collect();
        assert_eq!(shown, [Some(vec![3]), Some(vec![0, 1]), Some(vec![5]), None]);
        for yaml in ["{a: 0}", "{-1: 0}", "{0: x}", "[]", "~"] {
            assert!(decode::<SchedAffinity>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn runtimes_are_bound_in_turn() {
        let bindings = SchedAffinity::Auto.bind(3, 1, &[0, 2], |_| None).unwrap();
        assert_eq!(
            bindings,
            Bindings {
                sets: [0, 2, 0].map(|id| Some(CpuSet::one(id))).into(),
                wraps: true
            }
        );
        assert_eq!(
            SchedAffinity::Auto.bind(2, 2, &[0, 1], |_| None),
            Err(AffinityError::SharedRuntimes)
        );
    }

    #[test]
    fn variables_bind_some_and_leave_the_rest() {
        let variable = |name: &str| (name == "WORKER_1_CPU_LIST").then(|| "4-5".to_owned());
        let bindings = SchedAffinity::Auto.bind(2, 2, &[0, 1], variable).unwrap();
        assert_eq!(bindings.sets, [None, CpuSet::parse("4-5")]);
        assert!(SchedAffinity::Auto.bind(2, 1, &[0], |_| Some("x".to_owned())).is_err());
    }
}
