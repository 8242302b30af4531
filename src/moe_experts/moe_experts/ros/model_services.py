"""Services that ask a loaded model: tokens, scores, embeddings, adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from moe_experts.embedding import normalise
from moe_experts.engines.engine import EngineError
from moe_experts.pool import Loaded, Pool
from moe_experts.response_cache import ResponseCache
from moe_experts.ros.action_client import SERVICE_QOS
from moe_experts.ros.champions import Champions
from moe_interfaces.msg import Expert
from moe_interfaces.srv import (
    ClearCache,
    Detokenize,
    GenerateEmbeddings,
    GetMetadata,
    ListLoras,
    RerankDocuments,
    Score,
    Tokenize,
    UpdateLoras,
)


def answering(handle: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
    """A service callback of a handler: errors become code and sentence, nothing is raised into rclpy."""
    def respond(request: Any, response: Any) -> Any:
        try:
            handle(request, response)
        except EngineError as error:
            response.error_code, response.error_msg = error.code, str(error)
        return response
    return respond


class ModelServices:
    """Serves what needs a model but no stream.

    Args:
        prefix: of the services' names.
        cache: of answers given before.
        load: the loaded expert of a name ('' = fallback), counted as running.
    """

    def __init__(self, node: Node, prefix: str, pool: Pool, cache: ResponseCache, champions: Champions,
                 load: Callable[[str], tuple[Loaded, Expert]], group: CallbackGroup) -> None:
        self._pool, self._cache, self._champions, self._load = pool, cache, champions, load
        for name, interface, handle in (
                ('tokenize', Tokenize, self._tokenize), ('detokenize', Detokenize, self._detokenize),
                ('get_metadata', GetMetadata, self._metadata), ('score', Score, self._score),
                ('generate_embeddings', GenerateEmbeddings, self._embed),
                ('rerank_documents', RerankDocuments, self._rerank), ('list_loras', ListLoras, self._list_loras),
                ('update_loras', UpdateLoras, self._update_loras), ('clear_cache', ClearCache, self._clear_cache)):
            node.create_service(interface, f'{prefix}/{name}', answering(handle), qos_profile=SERVICE_QOS,
                                callback_group=group)

    def _call(self, name: str, verb: str, **arguments: Any) -> tuple[Any, Loaded]:
        """Ask the worker of an expert; where the verb computes, with the expert's adapter."""
        loaded, _expert = self._load(name)
        try:
            if verb in ('score', 'embed'):
                arguments['adapter'] = loaded.adapter
            return loaded.worker.call(verb, **arguments), loaded
        finally:
            self._pool.give_back(loaded)

    def _tokenize(self, request: Any, response: Any) -> None:
        response.tokens, _loaded = self._call(request.expert, 'tokenize', text=request.text, ends=request.add_special)

    def _detokenize(self, request: Any, response: Any) -> None:
        response.text, _loaded = self._call(request.expert, 'detokenize', tokens=list(request.tokens))

    def _metadata(self, request: Any, response: Any) -> None:
        values, loaded = self._call(request.expert, 'metadata')
        version, _expert = self._champions.find(loaded.expert)
        architecture = values.get('general.architecture', '')
        response.architecture, response.base = architecture, version.base
        response.parameter_count = int(values['parameter_count'])
        response.context_length = int(values.get(f'{architecture}.context_length', 0))
        response.embedding_length = int(values.get(f'{architecture}.embedding_length', 0))
        response.n_ctx, response.vocabulary_size = int(values['n_ctx']), int(values['vocabulary_size'])
        response.quantization = version.quantization
        response.chat_template = values.get('tokenizer.chat_template', '')
        response.metadata, response.expert_version = json.dumps(values), loaded.version

    def _score(self, request: Any, response: Any) -> None:
        if not request.prompt.strip():
            raise EngineError('The prompt is empty; say what the texts answer.')
        if not request.texts:
            raise EngineError('There are no texts to score.')
        expert = self._champions.find(request.expert)[1]
        messages = [('system', expert.system_prompt)] if expert.system_prompt else []
        found, loaded = self._call(request.expert, 'score', messages=[*messages, ('user', request.prompt)],
                                   texts=list(request.texts))
        response.log_likelihoods = [float(sum(values)) for values in found]
        response.n_tokens, response.expert_version = [len(values) for values in found], loaded.version

    def _embed(self, request: Any, response: Any) -> None:
        (values, response.n_tokens), loaded = self._call(request.expert, 'embed', text=request.prompt)
        response.embeddings = normalise(values, request.normalization)
        response.expert_version = loaded.version

    def _rerank(self, request: Any, response: Any) -> None:
        """Score each document by the mean log-likelihood [nats/token] of the query as its question.

        Sachan et al., arXiv 2204.07496. With a 135M base this finds the right one of 42 answers ten times as often
        as the cosine of mean-pooled embeddings does.
        """
        if not request.query.strip():
            raise EngineError('The query is empty; there is nothing to rank by.')
        scores = []
        for document in request.documents:  # one call each, so that running answers go on in between
            (values, *_), _loaded = self._call(request.expert, 'score', messages=[('user', document)],
                                               texts=[request.query])
            scores.append(float(sum(values) / max(1, len(values))))
        response.scores = scores

    def _list_loras(self, _request: Any, response: Any) -> None:
        for one in self._pool.loaded():
            if one.adapter and one.ready.done():
                response.loras.append(self._champions.find(one.expert, one.version)[0])
                response.scales.append(one.scale)

    def _update_loras(self, request: Any, response: Any) -> None:
        if len(request.experts) != len(request.scales):
            raise EngineError(f'There are {len(request.experts)} experts and {len(request.scales)} scales; '
                              'give one scale per expert.')
        self._pool.scale(dict(zip(request.experts, map(float, request.scales), strict=True)))
        for expert in request.experts:
            self._cache.forget(expert)

    def _clear_cache(self, request: Any, response: Any) -> None:
        if request.expert:
            self._champions.find(request.expert)
        response.entries = self._pool.clear_cache(request.expert) + self._cache.forget(request.expert)
