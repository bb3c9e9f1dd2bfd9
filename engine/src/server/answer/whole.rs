//! An answer in one object, when all of it is there.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use crate::server::answer::completion::Offset;
use crate::server::answer::{Head, Kind, UsageField, append};
use crate::server::error::ApiError;
use crate::server::generate::{Piece, Run};

/// Waits for all answers. Where the client goes away meanwhile, this is dropped, and the run with it.
pub(crate) async fn whole(mut run: Run, head: Head, answers: usize) -> Result<Response, ApiError> {
    let empty = |index| Piece {
        index,
        ..Piece::default()
    };
    let mut pieces: Vec<_> = (0..answers).map(empty).collect();
    while let Some(piece) = run.next().await {
        let piece = piece?;
        append(&mut pieces[piece.index], piece);
    }
    let usage = UsageField::Given(run.usage());
    let json = match head.kind {
        Kind::Completion => head.completion(&pieces, &mut vec![Offset::default(); answers], usage),
        Kind::Chat => head.chat(&pieces, usage),
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}
