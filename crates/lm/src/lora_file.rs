//! Adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use onig::{MatchParam, Regex, RegexOptions, SearchOptions, Syntax};
use serde_json::{Map, Value, json};
use zerosearch_files::write_atomic;
use zerosearch_text::from_python_json;

use crate::network::{Projection, Role};
use crate::{HostWeights, LmError, LoraConfig, ModelConfig, StoredDtype};

/// PEFT puts this before every name.
const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Keys that treat some modules in another way, or adapt something else than the projections.
const EXCEPTIONS: [&str; 8] = [
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
];
/// Ways of drawing the first `A` and `B` that leave the base as it is. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)
/// take out of the base what they put into the adapter: added to the whole base, it would count twice.
const PLAIN_STARTS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];
/// Keys of the form by which PEFT switches on variants of LoRA, that do not change what an adapter computes: details of
/// how it was drawn and trained, and of Megatron's layers, which a model here does not have.
const HARMLESS: [&str; 8] = [
    "use_rslora",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "velora_config",
    "megatron_config",
    "runtime_config",
];
/// The modules that PEFT adapts in the families here where a configuration names none.
const DEFAULT_TARGETS: [&str; 2] = ["q_proj", "v_proj"];

impl LoraConfig {
    /// Writes `adapter_config.json` and `adapter_model.safetensors`, which PEFT loads.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, adapters: &HostWeights) -> Result<(), LmError> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder)
            .map_err(|error| LmError::file(folder, format!("cannot be created: {error}")))?;
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": self.rank, "lora_alpha": self.alpha,
            "lora_dropout": self.dropout, "target_modules": self.target_modules, "bias": "none", "fan_in_fan_out": false,
            "inference_mode": true, "base_model_name_or_path": null,
        });
        let text = serde_json::to_string_pretty(&config).map_err(|error| LmError::file(folder, error))?;
        write_atomic(folder.join(CONFIG), text.as_bytes())?;
        let mut named = HostWeights::default();
        adapters.iter().for_each(|(name, tensor)| named.insert(format!("{PREFIX}{name}"), tensor.clone()));
        named.write(folder.join(WEIGHTS), StoredDtype::F32)
    }

    /// Reads what [`save`](Self::save), or PEFT, wrote for a model of this shape. rsLoRA's weight, `alpha / sqrt(rank)`,
    /// becomes an `alpha` that gives the same.
    ///
    /// # Errors
    /// When a file is missing or broken, asks for something that is not computed here, or does not fit the model.
    pub fn read(folder: impl AsRef<Path>, config: &ModelConfig) -> Result<(Self, HostWeights), LmError> {
        let folder = folder.as_ref();
        let path = folder.join(CONFIG);
        let text = std::fs::read(&path)
            .and_then(zerosearch_files::decode_text)
            .map_err(|error| LmError::file(&path, error))?;
        let value: Map<String, Value> =
            from_python_json(&text).map_err(|error| LmError::file(&path, format!("not a JSON object: {error}")))?;
        let lora = AdapterConfig { path: &path, value: &value }.read(config)?;
        let path = folder.join(WEIGHTS);
        if !path.exists() && folder.join("adapter_model.bin").exists() {
            let message =
                "No such file; adapter_model.bin is a pickle, which is not read: save it with safe_serialization";
            return Err(LmError::file(path, message));
        }
        let adapters = lora.matching(&path, HostWeights::read_file(&path)?, config)?;
        Ok((lora, adapters))
    }

    /// The stored matrices by their names here; exactly those that the configuration asks for.
    fn matching(&self, path: &Path, stored: HostWeights, config: &ModelConfig) -> Result<HostWeights, LmError> {
        let mut adapters = HostWeights::default();
        for (name, expected) in self.initial(config, 0).iter() {
            let wrong = |message: String| LmError::Tensor { path: path.into(), name: name.into(), message };
            match stored.get(&format!("{PREFIX}{name}")) {
                None => return Err(wrong("is missing; adapter_config.json asks for it".into())),
                Some(tensor) if tensor.shape != expected.shape => {
                    return Err(wrong(format!("has shape {:?}, expected {:?}", tensor.shape, expected.shape)));
                }
                Some(tensor) if tensor.values.iter().any(|value| !value.is_finite()) => {
                    return Err(wrong("holds a value that is not finite".into()));
                }
                Some(tensor) => adapters.insert(name, tensor.clone()),
            }
        }
        let known = |name: &str| name.strip_prefix(PREFIX).is_some_and(|name| adapters.get(name).is_some());
        match stored.iter().find(|(name, _)| !known(name)) {
            Some((name, _)) => {
                let message = "is not part of an adapter that adapter_config.json asks for".into();
                Err(LmError::Tensor { path: path.into(), name: name.into(), message })
            }
            None => Ok(adapters),
        }
    }
}

/// An `adapter_config.json`.
struct AdapterConfig<'a> {
    path: &'a Path,
    value: &'a Map<String, Value>,
}

impl AdapterConfig<'_> {
    fn read(&self, config: &ModelConfig) -> Result<LoraConfig, LmError> {
        self.only_what_is_computed()?;
        let rank = self.value.get("r").and_then(Value::as_u64).filter(|rank| (1..1 << 31).contains(rank));
        let rank = rank.ok_or_else(|| self.refuse("r", "a positive integer"))? as usize;
        let number = |key, least: f64, most: f64, expected| {
            let number = self.value.get(key).and_then(Value::as_f64);
            number.filter(|number| (least..most).contains(number)).ok_or_else(|| self.refuse(key, expected))
        };
        let alpha = number("lora_alpha", f64::MIN_POSITIVE, f64::INFINITY, "a finite number above 0")?;
        let dropout = match self.said("lora_dropout") {
            Some(_) => number("lora_dropout", 0.0, 1.0, "at least 0 and below 1")?,
            None => 0.0,
        };
        let stabilised = self.said("use_rslora") == Some(&Value::Bool(true));
        let lora = LoraConfig {
            rank,
            alpha: if stabilised { alpha * (rank as f64).sqrt() } else { alpha },
            dropout,
            target_modules: self.targets(config)?,
        };
        lora.validate()?;
        Ok(lora)
    }

    fn only_what_is_computed(&self) -> Result<(), LmError> {
        if self.said("peft_type").is_some_and(|kind| kind != "LORA") {
            return Err(self.refuse("peft_type", "LORA: other kinds of adapters are not computed"));
        }
        let plain_start = |start: &Value| match start {
            Value::String(name) => PLAIN_STARTS.contains(&name.to_lowercase().as_str()),
            other => other.is_boolean(),
        };
        if self.said("init_lora_weights").is_some_and(|start| !plain_start(start)) {
            let expected = format!(
                "true, false, {}: others changed the base's weights, so that the adapter does not fit the base as it was; \
                 PEFT's save_pretrained converts it where path_initial_model_for_weight_conversion is given",
                PLAIN_STARTS.join(", ")
            );
            return Err(self.refuse("init_lora_weights", &expected));
        }
        if self.said("bias").is_some_and(|bias| bias != "none") {
            return Err(self.refuse("bias", "none"));
        }
        if self.said("use_rslora").is_some_and(|flag| !flag.is_boolean()) {
            return Err(self.refuse("use_rslora", "true or false"));
        }
        let same = |map: &Map<String, Value>, key: &str| map.values().all(|value| self.value.get(key) == Some(value));
        for key in EXCEPTIONS {
            let plain = match (key, self.said(key)) {
                (_, None | Some(Value::Bool(false))) => true,
                // A list without a token is not the same as none.
                ("alora_invocation_tokens", _) => false,
                (_, Some(Value::Array(list))) => list.is_empty(),
                ("rank_pattern", Some(Value::Object(map))) => same(map, "r"),
                ("alpha_pattern", Some(Value::Object(map))) => same(map, "lora_alpha"),
                (_, Some(Value::Object(map))) => map.is_empty(),
                _ => false,
            };
            if !plain {
                return Err(self.refuse(key, "nothing: every target module of every layer is adapted alike"));
            }
        }
        let variant = |key: &str| key.starts_with("use_") || key.ends_with("_config");
        let set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        match self.value.iter().find(|(key, value)| variant(key) && set(value) && !HARMLESS.contains(&key.as_str())) {
            Some((key, _)) => Err(self.refuse(key, "null or false: this variant of LoRA is not computed")),
            None => Ok(()),
        }
    }

    /// The projections that have adapters, in every layer.
    fn targets(&self, config: &ModelConfig) -> Result<Vec<String>, LmError> {
        let targets = self.selection("target_modules")?;
        let excluded = self.selection("exclude_modules")?;
        let layers = self.layers(config)?;
        let selected = |module: &str| -> Result<bool, LmError> {
            let failed = |key| move |error| self.refuse(key, &format!("an expression that can be matched ({error})"));
            let wanted = match &targets {
                Some(targets) => targets.has(module).map_err(failed("target_modules"))?,
                None => DEFAULT_TARGETS.iter().any(|name| is_end(name, module)),
            };
            let spared = match &excluded {
                Some(excluded) => excluded.has(module).map_err(failed("exclude_modules"))?,
                None => false,
            };
            Ok(wanted && !spared)
        };
        for module in ["model.embed_tokens", "lm_head"] {
            if selected(module)? {
                let expected = format!("projections of the layers; {module} is not adapted here");
                return Err(self.refuse("target_modules", &expected));
            }
        }
        let specs = config.tensors();
        let mut adapted: Vec<Vec<&str>> = vec![Vec::new(); config.layers];
        for spec in specs.iter() {
            let (Role::Projection(projection), Some(module)) = (spec.role, spec.name.strip_suffix(".weight")) else {
                continue;
            };
            let layer = module.split('.').nth(2).and_then(|layer| layer.parse::<usize>().ok());
            if let Some(layer) = layer.filter(|layer| layers.as_ref().is_none_or(|layers| layers.contains(layer)))
                && selected(module)?
            {
                adapted[layer].push(projection.name());
            }
        }
        let key = if layers.is_some() { "layers_to_transform" } else { "target_modules" };
        match adapted.as_slice() {
            [first, others @ ..] if others.iter().all(|other| other == first) && !first.is_empty() => {
                let mut names: Vec<String> = first.iter().map(|name| name.to_string()).collect();
                // In the order of the file, where it lists names.
                if let Some(Value::Array(list)) = self.said("target_modules") {
                    names.sort_by_key(|name| list.iter().position(|entry| entry == name));
                }
                Ok(names)
            }
            [first, ..] if first.is_empty() && adapted.iter().all(Vec::is_empty) => {
                let all = Projection::ALL.map(Projection::name).join(", ");
                Err(self.refuse(key, &format!("some of {all}: no module of the model is adapted")))
            }
            _ => Err(self.refuse(key, "the same modules in every layer")),
        }
    }

    fn selection(&self, key: &str) -> Result<Option<Selection>, LmError> {
        match self.said(key) {
            None => Ok(None),
            Some(Value::String(name)) if name.to_lowercase() == "all-linear" => {
                Ok(Some(Selection::names(&Projection::ALL.map(Projection::name))))
            }
            Some(Value::String(pattern)) => {
                // Python's `re.fullmatch`, and its spelling of named groups.
                let pattern = format!("\\A(?:{})\\z", pattern.replace("(?P<", "(?<"));
                let regex = Regex::with_options(&pattern, RegexOptions::REGEX_OPTION_NONE, Syntax::perl_ng());
                let regex = regex.map_err(|error| self.refuse(key, &format!("a regular expression ({error})")))?;
                Ok(Some(Selection::Pattern(regex)))
            }
            Some(Value::Array(list)) => {
                let names: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                let names = names.ok_or_else(|| self.refuse(key, "a list of module names"))?;
                Ok(Some(Selection::names(&names)))
            }
            Some(_) => Err(self.refuse(key, "a list of module names")),
        }
    }

    /// The layers that are adapted; all where this is `None`.
    fn layers(&self, config: &ModelConfig) -> Result<Option<Vec<usize>>, LmError> {
        const KEY: &str = "layers_to_transform";
        let index = |value: &Value| value.as_u64().map(|index| index as usize);
        let layers: Option<Vec<usize>> = match self.said(KEY) {
            None => return Ok(None),
            Some(Value::Array(list)) if list.is_empty() => return Ok(None),
            Some(Value::Array(list)) => list.iter().map(index).collect(),
            Some(value) => index(value).map(|index| vec![index]),
        };
        let layers = layers.ok_or_else(|| self.refuse(KEY, "a list of layers"))?;
        let pattern =
            self.said("layers_pattern").filter(|pattern| *pattern != "layers" && *pattern != &json!(["layers"]));
        match pattern.filter(|pattern| *pattern != "" && *pattern != &json!([])) {
            Some(_) => Err(self.refuse("layers_pattern", "layers")),
            None if (0..config.layers).all(|layer| layers.contains(&layer)) => Ok(None),
            None => Ok(Some(layers)),
        }
    }

    /// A key's value, unless it is null.
    fn said(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn refuse(&self, key: &str, expected: &str) -> LmError {
        LmError::Config {
            path: self.path.into(),
            key: key.into(),
            value: self.value.get(key).map_or("missing".into(), Value::to_string),
            expected: expected.into(),
        }
    }
}

/// Which modules a key names.
enum Selection {
    /// A module's whole name or its end, after a dot.
    Names(Vec<String>),
    Pattern(Regex),
}

impl Selection {
    fn names(names: &[&str]) -> Self {
        Self::Names(names.iter().map(|name| name.to_string()).collect())
    }

    fn has(&self, module: &str) -> Result<bool, onig::Error> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_end(name, module))),
            Self::Pattern(regex) => {
                let options = SearchOptions::SEARCH_OPTION_NONE;
                let length = regex.match_with_param(module, 0, options, None, MatchParam::default())?;
                Ok(length.is_some())
            }
        }
    }
}

fn is_end(name: &str, module: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
