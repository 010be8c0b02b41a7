"""Which faults of the bench stand for which kind of mistake: the table of docs/CAUSES.md, that a test holds to this file.

    python bench/diagnose_coverage.py      prints the table
"""
import diagnose_faults_architectures  # noqa: F401  (these add their faults to FAULTS)
import diagnose_faults_fresh  # noqa: F401
import diagnose_faults_kernels  # noqa: F401
import diagnose_faults_modules  # noqa: F401
from diagnose_faults import FAULTS

# kind of mistake: (ids that name it, faults of the bench)
KINDS = {
    "eps, of the usual values": ("eps", "layer_norm_eps rms_eps batch_norm_eps"),
    "eps outside the root": ("eps-outside-root", "layer_norm_eps_outside rms_eps_outside_the_root batch_norm_eps_outside"),
    "a factor missing": ("scale attention-scale", "factor_missing attention_scale_absent eager_scale_absent"),
    "a factor doubled, or twice": ("scale attention-scale", "factor_doubled attention_scale_twice eager_scale_twice softmax_hot"),
    "its root, its reciprocal": ("scale attention-scale embedding-scale", "factor_root factor_reciprocal attention_scale_root eager_scale_root embedding_scaled"),
    "a cap of the logits, another or none": ("softcap softcap-missing", "attention_capped attention_capped_oddly eager_capped softcap_ignored softcap_doubled softcap_far_off"),
    "off by one in an added constant": ("offset weight-plus-one", "offset_missing offset_one_more layer_norm_plus_one rms_plus_one rms_without_one"),
    "erf, tanh, sigmoid and quick GELU, SiLU, ReLU": ("activation", "gelu_as_tanh_gelu gelu_as_quick_gelu gelu_as_silu gelu_as_relu silu_as_erf_gelu silu_as_tanh_gelu relu_as_erf_gelu relu_as_silu tanh_as_sigmoid"),
    "a slope below 0": ("slope activation", "relu_as_leaky relu_of_slope_a_fifth relu_as_elu"),
    "cut off": ("clamp-added clamp-missing activation", "relu_clipped_at_one relu_clipped_at_six relu6_as_relu gelu_as_relu6"),
    "operand in bf16": ("operand-precision", "linear_bf16_weight linear_bf16_input linear_bf16_both conv_bf16_weight embedding_bf16"),
    "operand in f16": ("operand-precision", "linear_f16_weight linear_f16_input linear_all_f16"),
    "operand in tf32": ("operand-precision", "linear_tf32 linear_tf32_weight conv_tf32 conv1d_tf32"),
    "operand in int8": ("operand-precision", "linear_int8_row linear_int8_both conv_int8_channel"),
    "one scale for the whole tensor": ("operand-precision", "linear_int8_tensor conv_int8_tensor conv1d_int8_tensor"),
    "operand in q8_0": ("operand-precision", "linear_q8_0 linear_q8_0_both"),
    "operand in q4_0, q4_1": ("operand-precision", "linear_q4_0 linear_q4_1"),
    "result in bf16, f16": ("result-precision", "linear_bf16_result linear_f16_result attention_logits_bf16"),
    "sums kept in half": ("accumulation-half", "linear_accumulated_bf16_32 linear_accumulated_bf16_16 linear_accumulated_bf16_1 linear_accumulated_f16"),
    "cast before or after the weight": ("cast-order cast-missing", "rms_cast_after_weight rms_cast_before_weight rms_not_widened"),
    "softmax in half": ("softmax-precision", "softmax_in_f16 softmax_in_bf16 attention_p_bf16 attention_logits_f16 eager_p_bf16"),
    "approximate rsqrt: 12 bits": ("approximate-rsqrt", "rsqrt_twelve_bits layer_norm_twelve_bits"),
    "approximate rsqrt: one step of Newton": ("approximate-rsqrt", "rsqrt_one_newton layer_norm_one_newton"),
    "fast exp": ("approximate-exp", "softmax_fast_exp attention_fast_exp eager_fast_exp"),
    "a bias left out": ("bias-missing", "linear_no_bias layer_norm_without_bias conv_no_bias conv1d_no_bias"),
    "a bias twice": ("bias-doubled", "linear_bias_twice conv_bias_twice conv1d_bias_twice"),
    "a weight transposed": ("weight-transposed weight-reshaped weight-layout", "linear_transposed linear_reshaped conv_hwio"),
    "rows or heads permuted": ("rows-permuted columns-permuted", "linear_rows_reversed linear_rows_shifted linear_halves_exchanged linear_columns_reversed heads_permuted heads_reversed"),
    "gate for up, q for k": ("weights-exchanged wrong-weight", "weights_swapped weight_of_the_other batch_norm_weight_and_bias"),
    "a neighbouring layer's": ("wrong-layer", "weight_of_next_layer vector_of_next_layer next_layer"),
    "tied, or not": ("tied-weight", "head_tied embedding_tied"),
    "a batch norm folded wrongly": ("fold", "fold_without_bias fold_along_inputs"),
    "normalised over another axis": ("norm-axis norm-groups", "layer_norm_over_positions layer_norm_over_all mean_over_positions group_norm_of_one"),
    "mean not subtracted": ("mean-not-subtracted statistics-ignored", "layer_norm_as_rms batch_norm_without_mean"),
    "mean subtracted": ("mean-subtracted", "rms_mean_subtracted t5_norm_as_layer_norm"),
    "variance with n - 1": ("variance-unbiased", "layer_norm_unbiased layer_norm_by_deviation mean_unbiased"),
    "a residual left out, or twice": ("addend-missing addend-doubled", "residual_missing branch_missing residual_twice"),
    "the residual at the other side of the norm": ("residual-placement", "residual_after_first_norm residual_after_second_norm norm_before_the_residual"),
    "an op left out": ("op-missing norm-missing softmax-missing", "gate_missing softmax_missing layer_norm_missing rsqrt_missing not_divided"),
    "two ops the other way round": ("op-order", "layer_norm_bias_first activation_before_the_residual attention_scaled_after_the_softmax eager_scaled_after_the_softmax"),
    "mask absent": ("mask-absent", "attention_mask_absent eager_mask_absent"),
    "mask off by one": ("mask-off-by-one mask-diagonal", "attention_mask_next eager_mask_next attention_self_hidden eager_self_hidden"),
    "added mask too small": ("mask-weak", "attention_mask_weak attention_mask_as_numbers eager_mask_weak eager_mask_as_numbers"),
    "padding ignored, or the order": ("mask-padding-ignored mask-causality-ignored", "attention_padding_ignored eager_padding_ignored attention_causality_ignored eager_causality_ignored"),
    "window ignored, of another size, added": ("window-ignored window-off-by-one window-added", "attention_window_ignored eager_window_ignored attention_window_one_more eager_window_one_more attention_window_three"),
    "a sink ignored, or added": ("sink", "softmax_without_sink softmax_with_sink"),
    "softmax over another axis": ("softmax-axis axis", "softmax_over_queries attention_over_queries attention_over_heads eager_over_queries"),
    "order of grouped heads": ("gqa-order", "attention_tiled_groups eager_tiled_groups"),
    "order in which heads are merged": ("head-order columns-permuted", "attention_heads_unmerged eager_heads_unmerged gelu_weights_transposed_per_head"),
    "rotary halves or neighbours": ("rope-interleaved rows-permuted", "rotary_interleaved rotary_interleaved_for_q heads_permuted"),
    "rotary base": ("rope-base", "rotary_base rotary_odd_base"),
    "rotary sign": ("rope-sign", "rotary_sign rotary_sine_and_cosine"),
    "rotary offset, position in a cache": ("rope-offset position-offset", "rotary_offset_of_q rotary_position_zero_for_q positions_one_later positions_all_zero"),
    "partly rotated": ("rope-partial", "rotary_half_width rotary_quarter_width"),
    "rotary absent, on one side, twice": ("rope-absent rope-twice", "rotary_absent rotary_absent_on_k rotary_k_rotated_as_q_is_not rotary_twice"),
    "rotary scaling ignored, or added": ("rope-scaling", "rotary_scaled_positions rotary_scaling_ignored"),
    "offset into an embedding": ("embedding-offset", "embedding_next embedding_previous"),
    "scale of an embedding": ("embedding-scale", "embedding_scaled factor_missing factor_root"),
    "token types ignored": ("embedding-ignored addend-missing", "embedding_types_ignored embedding_types_missing embedding_first"),
    "axes permuted": ("axes-order head-order", "transpose_as_reshape permute_as_reshape attention_heads_unmerged"),
    "stride": ("stride", "conv_stride_one conv1d_stride_one"),
    "padding": ("padding", "conv_padded_after conv_padded_replicate conv1d_causal"),
    "dilation": ("dilation", "conv_dilated conv1d_dilated"),
    "groups": ("groups-order", "conv_groups_by_turns conv_groups_written_by_turns"),
    "flipped kernel": ("kernel-flipped", "conv_flipped conv1d_flipped"),
    "dropout left on": ("dropout", "branch_with_dropout linear_with_dropout attention_with_dropout"),
    "the output is another tensor": ("other-tensor", "linear_returns_its_input block_returns_its_input"),
    "statistics of other elements": ("norm-statistics", "layer_norm_of_the_first_half layer_norm_tail_ignored layer_norm_first_row_for_all layer_norm_divided_by_more rms_of_the_first_half rms_first_row_for_all"),
    "a tail that fills no tile": ("columns-ignored part-zero keys-ignored", "linear_last_columns_ignored linear_last_tile_zero attention_last_keys_ignored eager_last_keys_ignored"),
    "another step from row to row": ("row-stride", "linear_row_stride_one_more linear_weight_stride_one_less"),
    "slots of a cache": ("cache-offset cache-stale", "cache_one_slot_late cache_values_one_slot_late cache_last_slot_empty"),
    "the sum of the softmax, and its blocks": ("softmax-normalisation softmax-blocks", "attention_not_normalised attention_padding_counted_in_the_sum attention_blocks_not_rescaled"),
    "a position bias": ("position-bias", "alibi_slopes_of_eight_heads alibi_sign alibi_heads_reversed attention_position_bias_scaled"),
    "weights of experts": ("experts", "experts_only_the_first experts_weights_alike experts_next experts_softmax_after"),
    "elements lost, slices zero or of elsewhere": ("elements-lost part-zero part-moved", "linear_elements_lost conv_border_not_written attention_one_head_of_another attention_last_queries_zero"),
    "tiles, and scales of the row beside": ("weight-tiles quantisation-scale", "linear_faces_exchanged linear_still_tiled linear_scale_of_next_row linear_scale_of_next_block"),
    "only some rows, heads, channels or positions wrong": ("part-zero output-zero batch-rows-alike weight-zero partly-wrong", "linear_one_row_zero attention_one_head_zero linear_last_position_zero linear_batch_rows_alike"),
}  # fmt: skip


def table():
    """The lines of the table in docs/CAUSES.md."""
    lines = ["| mistake | named as | faults of the bench |", "|---|---|---|"]
    return lines + [f"| {kind} | {', '.join(f'`{cause}`' for cause in causes.split())} | {len(faults.split())} |" for kind, (causes, faults) in KINDS.items()]


def problems():
    """What is wrong with KINDS: sentences, none if every kind has two faults or more that count its ids as right."""
    known = {fault.name: set(fault.causes) for fault in FAULTS}
    found = []
    for kind, (causes, faults) in KINDS.items():
        if len(set(faults.split())) < 2:
            found.append(f"{kind}: fewer than two faults")
        for fault in faults.split():
            if fault not in known:
                found.append(f"{kind}: there is no fault {fault}")
            elif not known[fault] & set(causes.split()):
                found.append(f"{kind}: {fault} counts {', '.join(sorted(known[fault]))} as right, not {causes}")
    return found


if __name__ == "__main__":
    print("\n".join(table()))
