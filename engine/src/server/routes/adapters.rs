//! Adapters at run time, as vLLM loads and unloads them.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use tokio::task;

use crate::driver::AdapterError;
use crate::server::app::{App, Engine};
use crate::server::error::ApiError;
use crate::server::request::body;
use crate::server::request::fields::Fields;

/// The longest name of an adapter (bytes).
const NAME_MAX: usize = 256;

pub(crate) async fn load(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<String, ApiError> {
    check_allowed(app.engine()?)?;
    let mut fields = Fields::parse(&body::read(request, &app.settings).await?)?;
    let name: String = fields.require("lora_name")?;
    let path: PathBuf = fields.require("lora_path")?;
    fields
        .take_or("load_inplace", false)?
        .then_some(())
        .map_or(Ok(()), |()| {
            let message =
                "`load_inplace` is not supported by this server; unload the adapter first";
            Err(ApiError::invalid_param("load_inplace", message))
        })?;
    fields.finish()?;
    check_name(app.engine()?, &name)?;
    // Reading files takes its time, and must not hold up the others.
    let loaded = task::spawn_blocking(move || load_from(&app, &name, &path)).await;
    loaded.map_err(|_| ApiError::internal("loading the adapter failed; please report it"))?
}

fn load_from(app: &App, name: &str, path: &std::path::Path) -> Result<String, ApiError> {
    let engine = app.engine()?;
    let loader = check_allowed(engine)?;
    let adapter = loader(name, path).map_err(|error| {
        app.log.write(&serde_json::json!({
            "time": crate::server::access_log::now(),
            "event": "adapter_refused",
            "adapter": name,
            "reason": error.detail,
        }));
        ApiError::invalid_param("lora_path", error.public).with_code("adapter_refused")
    })?;
    engine.replica.add_adapter(adapter)?;
    app.note_model(name);
    Ok(format!(
        "Success: LoRA adapter '{name}' added successfully."
    ))
}

pub(crate) async fn unload(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<String, ApiError> {
    let engine = app.engine()?;
    check_allowed(engine)?;
    let mut fields = Fields::parse(&body::read(request, &app.settings).await?)?;
    let name: String = fields.require("lora_name")?;
    // vLLM's own number of an adapter, which its clients may send along.
    fields.take::<u64>("lora_int_id")?;
    fields.finish()?;
    engine.replica.remove_adapter(&name)?;
    Ok(format!(
        "Success: LoRA adapter '{name}' removed successfully."
    ))
}

fn check_allowed(engine: &Engine) -> Result<&crate::server::AdapterLoader, ApiError> {
    engine.adapter_loader.as_ref().ok_or_else(|| {
        let message = "adapters cannot be loaded or unloaded at run time; \
            start the server with --enable-adapter-loading to allow it";
        ApiError::new(StatusCode::FORBIDDEN, message).with_code("adapter_loading_disabled")
    })
}

fn check_name(engine: &Engine, name: &str) -> Result<(), ApiError> {
    let is_plain = !name.is_empty() && name.len() <= NAME_MAX && !name.contains(char::is_control);
    if !is_plain {
        let message = format!("`lora_name` has 1 to {NAME_MAX} bytes, and no control characters");
        return Err(ApiError::invalid_param("lora_name", message));
    }
    if engine.names.iter().any(|base| base == name) {
        let message = format!("`{name}` is a name of the base model; choose another");
        return Err(ApiError::invalid_param("lora_name", message));
    }
    Ok(())
}

impl From<AdapterError> for ApiError {
    fn from(error: AdapterError) -> Self {
        let message = error.to_string();
        match error {
            AdapterError::Unknown(_) => {
                Self::new(StatusCode::NOT_FOUND, message).with_param("lora_name")
            }
            AdapterError::AlreadyThere(_) => Self::invalid_param("lora_name", message),
            AdapterError::NoSlots
            | AdapterError::RankTooLarge { .. }
            | AdapterError::TooMany { .. } => Self::invalid(message),
            AdapterError::ShutDown => Self::unavailable(message).with_code("draining"),
        }
    }
}
