"""Gossip-based descent: every node steps along its own coded gradient, then averages with its neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fedgc.decentralised.losses import ShardedLoss
from fedgc.decentralised.mixing import check_mixing
from fedgc.decoders import CalibratedDecoder
from fedgc.decoders.linear import CalibratedLinear
from fedgc.validation import check_vector

Matrix = NDArray[np.float64]


def node_coefficients(decoder: CalibratedDecoder) -> sparse.csr_array[np.float64]:
    """Return what each shard's gradient counts in the step of a node that is ready, (n_nodes, n_shards).

    Parameters
    ----------
    decoder : CalibratedDecoder
        Calibrated by a rule with settled weights, for a code with one row per node.

    Raises
    ------
    ValueError
        If the weights depend on who else arrives, which no node knows, or a node has several rows.

    Notes
    -----
    ``c_ij = w_i a_ij``, w the decoding weights and a the encoding matrix. Of the rules with settled weights

    * ``inverse-probability`` on stochastic gradient coding is GOCO's: ``c_ij = 1 / (d_j (1 - p_i))``;
    * ``fixed`` has the least variance for orthogonal gradients: ``c_ij`` in proportion to ``1 / p_i``;
    * ``fixed-general`` has it for gradients with a given coherence;
    * ``sum`` without redundancy ignores stragglers.

    Examples
    --------
    >>> from fedgc.codes import MatrixCode
    >>> from fedgc.decoders import FixedDecoder, InverseProbabilityDecoder
    >>> from fedgc.gram import GramModel
    >>> code, gram = MatrixCode([[0.5], [0.5]]), GramModel([1.0], [0.0])
    >>> for rule in (InverseProbabilityDecoder(), FixedDecoder()):
    ...     node_coefficients(rule.calibrate(code, [0.25, 0.5], gram)).toarray().ravel().round(3).tolist()
    [0.667, 1.0]
    [1.0, 0.5]
    """
    if not isinstance(decoder, CalibratedLinear) or decoder.code.n_rows != decoder.code.n_clients:
        raise ValueError(
            f"decoder must have weights that are settled before the round, one per node; got {type(decoder).__name__}"
        )
    weights = decoder.decode(np.ones(decoder.code.n_rows, dtype=np.bool_)).decoding_weights
    return sparse.csr_array(decoder.code.sparse_matrix * weights[:, None])


def gossip_descent(
    loss: ShardedLoss,
    decoder: CalibratedDecoder,
    mixing: ArrayLike,
    finished: NDArray[np.bool_],
    steps: ArrayLike,
    *,
    start: ArrayLike | None = None,
) -> Iterator[Matrix]:
    """Yield the models of all nodes before each round, and after the last one, (n_nodes, n_parameters).

    Parameters
    ----------
    loss : ShardedLoss
        What is minimised.
    decoder : CalibratedDecoder
        Who holds which shards, and what their gradients count; see :func:`node_coefficients`.
    mixing : array_like, shape (n_nodes, n_nodes)
        Doubly stochastic gossip weights; see :func:`fedgc.decentralised.check_mixing`.
    finished : ndarray of bool, shape (n_rounds, n_nodes)
        Which nodes have their gradients ready in each round.
    steps : array_like, shape (n_rounds,)
        Step sizes of the mean model.
    start : array_like, shape (n_parameters,), optional
        The first model of all nodes; by default zero.

    Raises
    ------
    ValueError
        If the shapes do not fit, the mixing matrix cannot serve, or the decoder's weights are not settled.

    Notes
    -----
    With the coded gradient ``g_j = sum_k c_jk grad f_k(x_j)`` of a node that is ready, zero for a straggler,

        x_i <- sum_j W_ij (x_j - n eta_t g_j).

    Since W is doubly stochastic the mean model moves along ``- eta_t sum_j g_j``, and where all nodes agree this has
    the mean ``- eta_t grad F`` if the decoder is unbiased. So steps mean the same as in descent with a server, which
    ``W = 11' / n`` is, exactly. GOCO's step is ``n eta_t`` in these terms. A straggler does not step, but averages.

    The noise of a round is that of the decoder, ``sum_j p_j / (1 - p_j) a_j' G a_j``, whatever the graph: nodes
    straggle independently. That is why the weights with the least variance with a server are those without one too, as
    long as disagreement is small against it. Disagreement is what the graph adds: it comes from the nodes' different
    mean gradients as well as from their noise, and is of the order of ``eta_t^2`` against ``eta_t`` for the noise.

    References
    ----------
    C. Li, M. Skoglund, "Gradient Coding in Decentralized Learning for Evading Stragglers", arXiv 2402.04193.

    Examples
    --------
    >>> from fedgc.codes import Uncoded
    >>> from fedgc.decoders import SumDecoder
    >>> from fedgc.decentralised import QuadraticLoss, metropolis_weights, ring
    >>> from fedgc.gram import GramModel
    >>> decoder = SumDecoder().calibrate(Uncoded(3, 3), [0.0] * 3, GramModel.uniform(3, 0.0))
    >>> everyone = np.ones((1, 3), dtype=bool)
    >>> loss = QuadraticLoss([[0.0], [3.0], [6.0]])
    >>> [x.round(12).tolist() for x in gossip_descent(loss, decoder, metropolis_weights(ring(3)), everyone, [0.5])]
    [[[0.0], [0.0], [0.0]], [[1.5], [1.5], [1.5]]]
    """
    w, coefficients = check_mixing(mixing), node_coefficients(decoder)
    n = w.shape[0]
    if coefficients.shape != (n, loss.n_shards):
        raise ValueError(
            f"decoder must be of {n} nodes and {loss.n_shards} shards, as mixing and loss; got {coefficients.shape}"
        )
    ready = np.asarray(finished)
    if ready.ndim != 2 or ready.shape[1] != n or ready.dtype != np.bool_:
        raise ValueError(f"finished must be boolean of shape (n_rounds, {n}); got {ready.dtype} of {ready.shape}")
    etas = check_vector("steps", steps, length=ready.shape[0], low=0.0, who="round")
    first = np.zeros(loss.n_parameters) if start is None else check_vector("start", start, length=loss.n_parameters)
    return _descend(loss, coefficients, w, first, rounds=list(zip(ready, etas, strict=True)))


def _descend(
    loss: ShardedLoss,
    coefficients: sparse.csr_array[np.float64],
    mixing: Matrix,
    first: Matrix,
    *,
    rounds: list[tuple[NDArray[np.bool_], float]],
) -> Iterator[Matrix]:
    # Apart from the checks, which are to speak when it is called and not when the first model is asked for.
    n = mixing.shape[0]
    models = np.repeat(first[None], n, axis=0)
    for ready, step in rounds:
        yield models
        stepped = models.copy()
        if ready.any():
            stepped[ready] -= n * step * loss.combined_gradients(models[ready], coefficients[ready])
        models = mixing @ stepped
    yield models


def disagreement(models: Matrix) -> float:
    """Return the mean squared distance of the nodes' models from their mean.

    Examples
    --------
    >>> disagreement(np.array([[0.0], [2.0]]))
    1.0
    """
    return float(((models - models.mean(axis=0)) ** 2).sum(axis=1).mean())
