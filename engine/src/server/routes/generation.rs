//! `/v1/completions` and `/v1/chat/completions`: from a body to a run, and to its answer.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use crate::server::answer::{self, Head, Kind};
use crate::server::app::{App, Engine};
use crate::server::error::ApiError;
use crate::server::generate::{Plan, Prompt, Run, Wanted};
use crate::server::record::Record;
use crate::server::request::body;
use crate::server::request::chat::ChatRequest;
use crate::server::request::completion::CompletionRequest;
use crate::server::request::options::Options;
use crate::server::request::prompt::Prompts;
use crate::server::request::text::{encode, off_thread, render_and_encode};
use crate::text::Tokenizer;

pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine()?;
    let body = body::read(request, &app.settings).await?;
    let request = off_thread(body.len(), move || CompletionRequest::parse(&body)).await?;
    let (options, echo) = (request.options, request.echo);
    let adapter = resolve(engine, &record, &options)?;
    check_count(&app, request.prompts.len(), options.n)?;
    let prompts = prompts(engine, request.prompts, request.add_special_tokens, echo).await?;
    let wanted = Wanted {
        options,
        max_tokens: Some(request.max_tokens),
        echo,
    };
    let asked = Asked {
        kind: Kind::Completion,
        adapter,
        wanted,
        prompts,
    };
    asked.answer(&app, engine, &record).await
}

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine()?;
    let body = body::read(request, &app.settings).await?;
    let bytes = body.len();
    let request = off_thread(bytes, move || ChatRequest::parse(&body)).await?;
    let adapter = resolve(engine, &record, &request.options)?;
    check_count(&app, 1, request.options.n)?;
    let tokens = render_and_encode(engine, request.conversation, bytes).await?;
    let wanted = Wanted {
        options: request.options,
        max_tokens: request.max_tokens,
        echo: false,
    };
    let text = None;
    let asked = Asked {
        kind: Kind::Chat,
        adapter,
        wanted,
        prompts: vec![Prompt { tokens, text }],
    };
    asked.answer(&app, engine, &record).await
}

/// Which adapter to compute with; the record learns the model's name once it is known to be one of ours.
fn resolve(
    engine: &Engine,
    record: &Record,
    options: &Options,
) -> Result<Option<String>, ApiError> {
    let adapter = engine.resolve(&options.model)?;
    let mut notes = record.notes();
    notes.model = Some(options.model.clone());
    notes.stream = options.stream.is_some();
    Ok(adapter)
}

fn check_count(app: &App, prompts: usize, n: u32) -> Result<(), ApiError> {
    let (count, most) = (
        prompts.saturating_mul(n as usize),
        app.settings.generations_max,
    );
    if count > most {
        let message = format!(
            "{prompts} prompts with {n} answers each are {count} generations; \
             a request may have {most}"
        );
        return Err(ApiError::invalid_param("prompt", message));
    }
    Ok(())
}

/// All prompts in tokens, with their text if it is to be echoed.
async fn prompts(
    engine: &Engine,
    prompts: Prompts,
    add_special_tokens: bool,
    echo: bool,
) -> Result<Vec<Prompt>, ApiError> {
    let tokenizer = Arc::clone(&engine.tokenizer);
    let bytes = prompts.bytes();
    off_thread(bytes, move || match prompts {
        Prompts::Texts(texts) => {
            let of_text = |text| of_text(&tokenizer, text, add_special_tokens, echo);
            texts.into_iter().map(of_text).collect()
        }
        Prompts::Tokens(lists) => {
            let of_tokens = |tokens| of_tokens(&tokenizer, tokens, echo);
            lists.into_iter().map(of_tokens).collect()
        }
    })
    .await
}

fn of_text(
    tokenizer: &Tokenizer,
    text: String,
    add_special_tokens: bool,
    echo: bool,
) -> Result<Prompt, ApiError> {
    let tokens = encode(tokenizer, &text, add_special_tokens)?;
    Ok(Prompt {
        tokens,
        text: echo.then_some(text),
    })
}

fn of_tokens(tokenizer: &Arc<Tokenizer>, tokens: Vec<u32>, echo: bool) -> Result<Prompt, ApiError> {
    let text = echo.then(|| tokenizer.decode(&tokens, false));
    Ok(Prompt {
        tokens: tokens.into(),
        text,
    })
}

/// What is asked, once all of it is understood.
struct Asked {
    kind: Kind,
    adapter: Option<String>,
    wanted: Wanted,
    prompts: Vec<Prompt>,
}

impl Asked {
    async fn answer(
        self,
        app: &Arc<App>,
        engine: &Engine,
        record: &Arc<Record>,
    ) -> Result<Response, ApiError> {
        let options = &self.wanted.options;
        let id = options.request_id.as_deref().unwrap_or(&record.id);
        let prompts = self.prompts_of_answers();
        let head = Head::new(self.kind, id, options, &engine.tokenizer, prompts);
        let (answers, stream) = (self.prompts.len() * options.n as usize, options.stream);
        let adapter = self.adapter.as_deref();
        let plan = Plan::new(engine, id, adapter, &self.wanted, self.prompts)?;
        let passage = match &engine.entrance {
            Some(entrance) => {
                let prompt_tokens = u32::try_from(plan.prompt_tokens).unwrap_or(u32::MAX);
                Some(entrance.pass(prompt_tokens).await)
            }
            None => None,
        };
        let run = Run::begin(app, engine, record, plan)?;
        drop(passage);
        match stream {
            Some(options) => {
                let record = Arc::clone(record);
                Ok(answer::stream(run, head, answers, options, record))
            }
            None => answer::whole(run, head, answers).await,
        }
    }

    fn prompts_of_answers(&self) -> Vec<Arc<[u32]>> {
        let n = self.wanted.options.n as usize;
        let tokens = self.prompts.iter().map(|prompt| &prompt.tokens);
        tokens
            .flat_map(|tokens| std::iter::repeat_n(Arc::clone(tokens), n))
            .collect()
    }
}
