"""The laboratories, one a chapter: what is measured, the range that is right, our curve, and what to look for in the sentences."""

from .curves import (
    crossing_of,
    fall_of,
    first_value,
    last_value,
    lowest_value,
    mean_abscissa,
    mean_of,
    power_of,
    rise_of,
    value_at,
)
from .laboratory import Laboratory

__all__ = [
    "break_a_factor",
    "one_number_for_a_block",
    "wide_enough_to_be_linear",
    "who_helps_whom",
    "find_the_poison",
    "forget_on_purpose",
    "two_kinds_one_label",
    "a_tenth_of_the_digits",
    "order_of_freezing",
    "path_kernel_from_scratch",
    "without_the_contributors",
    "power_of_the_units",
    "do_labels_help",
    "what_training_made",
    "power_of_the_scale",
    "price_of_noise",
    "nearness_of_one_network",
    "labels_in_a_spread",
    "effects_of_many",
]

break_a_factor = Laboratory(
    number="1.7",
    quantity="how far the slope of the remainder falls",
    low=0.75,
    high=1.25,
    ours="1.00 without A, with a spread below 0.01 over five networks and pairs; with K transposed 0.9 to 1, with a spread up to 0.1",
    widest=0.25,
    readings=(
        (
            -0.2,
            0.2,
            "Nothing has broken in the first order: the slope is what it was, or 2 was never reached. Plot both remainders.",
        ),
        (1.75, 2.25, "That is the slope of the whole formula; or the broken one has slope 0, because eta is missing in it."),
        (-1.25, -0.75, "The sign is turned: the whole formula's slope less the broken one's."),
    ),
    x=(0.0001, 0.0002154, 0.0004642, 0.001, 0.002154, 0.004642, 0.01),
    y=(0.0006347, 0.001367, 0.002946, 0.006346, 0.01367, 0.02943, 0.06332),
    axes=("learning rate", "remainder of the broken formula"),
    logs=True,
    rubric=(
        "2 points: says what was broken, and that slope 1 means an error of first order.",
        "1 point: several networks or pairs, with their spread, and the whole formula beside it.",
        "1 point: says what the size of the error alone would not have shown, or at which rates rounding or curvature bend the line.",
    ),
    answers=(
        "4: Without A the slope falls from 2.00 to 1.00 over five networks; the formula is then wrong however small the step. "
        "At one rate the error is small in either case, so only the slope tells.",
        "2: The slope went from 2 to 1, so the factor matters.",
    ),
    held=(power_of(0.3, times=-1, less=2),),
)

one_number_for_a_block = Laboratory(
    number="2.7",
    quantity="the power of the width with which the pseudo-NTK nears the eNTK",
    low=-0.65,
    high=-0.35,
    ours="-0.49, with a spread of 0.05 over five seeds",
    widest=0.2,
    readings=(
        (
            -1.3,
            -0.75,
            "About twice as steep. Squared norms have the power -1, and so has a network with one hidden layer; wanted are norms, and two.",
        ),
        (
            -0.2,
            0.3,
            "Next to no fall. Is it the slope of log distance against log width, is the distance taken relative to the norm of the "
            "eNTK, and are the weights random ones? (At trained weights it hardly falls.)",
        ),
        (0.35, 0.65, "A distance that falls has a negative power; else the axes are exchanged."),
    ),
    x=(32, 64, 128, 256, 512),
    y=(0.4287, 0.3067, 0.2276, 0.1399, 0.1139),
    axes=("width", "relative distance"),
    logs=True,
    rubric=(
        "2 points: names the power with its spread, and what it compares.",
        "1 point: a reason (entries off the diagonal are sums of many terms of random sign).",
        "1 point: says that the weights are random ones, and that trained ones may differ; or tries it.",
    ),
    answers=(
        "4: The distance falls like the width to the -0.49 ± 0.05, as a sum of random signs would. The weights are "
        "untrained: after ten epochs on 300 digits the distance at width 512 was 0.49, four times as large.",
        "2: It falls with width, so the pseudo-NTK is a good approximation.",
    ),
    held=(power_of(0.15),),
)

wide_enough_to_be_linear = Laboratory(
    number="3.7",
    quantity="the width at which the linearised network is within one per cent",
    low=140,
    high=215,
    ours="176, with a spread of 8 over five seeds",
    widest=30,
    readings=(
        (0, 140, "Check the task: tanh, 100 steps of rate 1 / lambda_max, 40 images to train on, the gap on the 20 others."),
        (
            215,
            1e7,
            "Check the task: does the linearised network start from the network's own first answer, is the loss half the sum, is it tanh?",
        ),
    ),
    x=(32, 64, 128, 256, 512),
    y=(0.03757, 0.02936, 0.01558, 0.00596, 0.002149),
    axes=("width", "gap"),
    logs=True,
    rubric=(
        "2 points: a width with its spread, read off between measured widths.",
        "1 point: says for which task, steps and activation it holds.",
        "1 point: says what would carry over (how the gap falls), or tries another activation or more steps.",
    ),
    answers=(
        "4: 176 ± 8 units are enough for tanh, 100 steps and these two digits. Between 128 and 512 the gap falls about like the power "
        "-1.4; with fewer units more slowly, so I would not draw the line on to other widths.",
        "2: Wide networks are linear.",
    ),
    held=(crossing_of(0.01, 40),),
)

who_helps_whom = Laboratory(
    number="4.7",
    quantity="the rank correlation of lpNTK with the loss that a step takes away",
    low=-0.1,
    high=0.26,
    ours="0.08, with a spread of 0.09 over five seeds; with the true loss gradients 0.9999",
    widest=0.3,
    readings=(
        (0.9, 1.01, "That is the kernel with the true loss gradients, the first order itself."),
        (-1.01, -0.1, "Is the fall loss before minus loss after, and is the kernel in the order of the falls, samples o first?"),
        (0.26, 0.9, "Are the networks trained for five epochs, and all 400 pairs used, those with one label and with two?"),
    ),
    x=(0, 2, 5, 10),
    y=(0.2013, 0.1686, 0.07546, -0.005929),
    axes=("epochs of training", "rank correlation"),
    logs=False,
    rubric=(
        "2 points: both kernels' correlations, with a spread, and that the second is the first order.",
        "1 point: what the signs lack: how wrong each of the two samples still is.",
        "1 point: does not say more than the data: another score, other pairs or within one label may differ.",
    ),
    answers=(
        "4: After five epochs lpNTK's ranks are as good as unrelated to the true falls (0.08 ± 0.09), those with the "
        "true gradients right to 0.9999. A pair moves by the errors' sizes, which the signs drop.",
        "2: lpNTK does not work.",
    ),
    held=(
        value_at(5, 0.06),
        first_value(0.1, wanted=0.2),
        last_value(0.15, wanted=0.0),
    ),
)

find_the_poison = Laboratory(
    number="5.7",
    quantity="the share found of random flips less that of systematic ones",
    low=0.42,
    high=0.8,
    ours="0.62, with a spread of 0.07 over five seeds: 0.90 of the random flips, 0.28 of the systematic ones",
    widest=0.2,
    readings=(
        (0.82, 1.0, "That is the share of the random flips alone; take away that of the systematic ones."),
        (
            -0.1,
            0.1,
            "No difference: are the labels that you trained on the flipped ones, and sorted with the largest difficulty first?",
        ),
        (-0.8, -0.42, "The sign is turned: random less systematic."),
        (0.1, 0.42, "Less than we saw: are all epochs added up, and as many samples taken as were flipped?"),
    ),
    x=(1, 2, 5, 10, 20),
    y=(0.536, 0.68, 0.8, 0.88, 0.904),
    axes=("epochs added up", "share of random flips found"),
    logs=False,
    rubric=(
        "2 points: both shares with their spread, and chance (one in twenty) beside them.",
        "1 point: says why systematic flips hide: they are consistent, so they are learnt.",
        "1 point: says what was taken for poison and was not, or when else the method would fail (hard but right labels).",
    ),
    answers=(
        "4: 0.90 of the random flips are among the hardest five per cent, 0.28 of the threes called eights; chance finds 0.05. "
        "Difficulty finds labels that a network does not learn, and these it learns. What was wrongly suspected is badly written.",
        "2: Difficulty finds ninety per cent of bad labels.",
    ),
    held=(last_value(0.2, wanted=0.9),),
)

forget_on_purpose = Laboratory(
    number="6.7",
    quantity="how many times as many forgetting events your order makes",
    low=2.0,
    high=8.0,
    ours="4.4, with a spread of 0.8 over five seeds, sorted by class",
    widest=3.0,
    readings=(
        (0.03, 0.6, "The ratio is upside down: yours over the shuffled order's."),
        (8.0, 100.0, "More than any order made here: the same rate, batch size and samples in both passes?"),
        (0.6, 2.0, "Hardly more than the shuffled order. What do all steps on one class do to the others?"),
    ),
    x=(0, 1, 2, 3, 4),
    y=(3.812, 4.901, 3.508, 5.365, 4.387),
    axes=("seed", "ratio"),
    logs=False,
    rubric=(
        "2 points: an order, the ratio with its spread, at the same number of steps on the same samples.",
        "1 point: a reason by the first chapter's formula.",
        "1 point: what it says of forgetting scores as a property of a sample.",
    ),
    answers=(
        "4: Sorted by class there are 4.4 ± 0.8 times as many events, with the same samples and steps. Each batch pulls "
        "all its class's outputs up and the others down. A forgetting score without the order of the batches says "
        "little of a sample.",
        "2: Sorted batches make a network forget more.",
    ),
    held=(mean_of("ratios", 0.25),),
)

two_kinds_one_label = Laboratory(
    number="7.7",
    quantity="the purity of eight clusters",
    low=0.75,
    high=0.97,
    ours="0.89, with a spread of 0.04 over five seeds; always guessing the larger kind gives 0.52",
    widest=0.15,
    readings=(
        (0.45, 0.62, "That is guessing: are the clusters those of the kernel, of the two digits alone, by cosines?"),
        (0.97, 1.01, "Nobody finds them all: was the kernel told the hidden labels, hidden[both] for y[both]?"),
        (0.62, 0.75, "Eight clusters, by cosines: lengths, or fewer clusters, give less."),
    ),
    x=(2, 4, 8, 16),
    y=(0.641, 0.771, 0.888, 0.914),
    axes=("clusters", "purity"),
    logs=False,
    rubric=(
        "2 points: purity with its spread, beside guessing.",
        "1 point: says that purity rises with the number of clusters by itself, or compares with clusters at random.",
        "1 point: says where the difference is (pixels, or what training made), or tries an untrained network.",
    ),
    answers=(
        "4: 0.89 ± 0.04 against 0.52 by guessing and 0.60 with samples spread over eight clusters at random. Untrained "
        "networks give 0.85 and the pixels themselves 0.93, so training did not make it.",
        "2: The kernel knows that there are two digits.",
    ),
    held=(value_at(8, 0.06),),
)

a_tenth_of_the_digits = Laboratory(
    number="8.7",
    quantity="the points of accuracy that your tenth is ahead of a random one",
    low=-25,
    high=5.5,
    ours="+2.7, with a standard error of 0.7 over eight draws, by farthest points of the pixels in each class",
    widest=3.0,
    readings=(
        (
            5.5,
            15,
            "More than a tenth has gained here: were test images used to choose, or more samples taken? A random tenth has about 91.",
        ),
        (15, 101, "Is that an accuracy? Wanted is the difference to the random tenth, in points."),
    ),
    x=(0, 1, 2, 3, 4, 5, 6, 7),
    y=(5.556, 3.611, 0.2778, 1.944, 3.333, -0.2778, 2.5, 4.444),
    axes=("draw", "points ahead"),
    logs=False,
    rubric=(
        "2 points: a rule that uses no test image, the same size and classes as the random draw, differences in pairs.",
        '1 point: a standard error, and a conclusion that follows from it ("ahead", "behind" or "cannot tell").',
        "1 point: says why, or what it would take to show more.",
    ),
    answers=(
        "4: Farthest points are 2.7 ± 0.7 points ahead over eight paired draws. Few samples are best spread out; the "
        "hardest by EL2N were 4 points behind the random ones (four draws).",
        "2: My rule is better than random.",
    ),
    held=(mean_of("points ahead", 0.3),),
    least=0.1,
)

order_of_freezing = Laboratory(
    number="9.7",
    quantity="the power of the learning rate in what the discrete path kernel misses",
    low=0.85,
    high=1.15,
    ours="0.98, with a spread of 0.01 over five seeds",
    widest=0.15,
    readings=(
        (1.7, 2.3, "That is the order of one step. Over the same time there are 1 / rate steps: keep rate times steps at 4."),
        (-0.3, 0.3, "No fall: the number of steps has to grow as the rate falls."),
    ),
    x=(0.4, 0.2, 0.1, 0.05),
    y=(0.2214, 0.1136, 0.05749, 0.02891),
    axes=("learning rate", "largest error"),
    logs=True,
    rubric=(
        "2 points: the power, with its spread, at the same time of training.",
        "1 point: the count: second order a step, 1 / rate steps.",
        "1 point: what this buys (halving the error doubles the work), or where it breaks down (large rates, kinks).",
    ),
    answers=(
        "4: 0.98 ± 0.01: second order a step, and twice as many steps when the rate is halved. From rate 1 to 2 the "
        "error grew sixfold: there the line ends.",
        "2: The error is proportional to the rate.",
    ),
    held=(power_of(0.1),),
)

path_kernel_from_scratch = Laboratory(
    number="10.7",
    quantity="log10 of the largest difference between the kernel machine and the network",
    low=-17,
    high=-12,
    ours="-15.2, with a spread of 0.2 over five seeds, with twelve nodes",
    widest=1.5,
    readings=(
        (
            -12,
            -5,
            "Near, and not exact: more Gauss nodes a step, float64 everywhere, and the training gradient at the start of the step.",
        ),
        (
            -5,
            1,
            "The errors or the training Jacobian taken at the end of the step, or the logarithm forgotten, or 1 / N; "
            "or first order: average the test Jacobian along the whole step, with the rule's weights (they add up to 1).",
        ),
        (12, 17, "The logarithm's sign is turned."),
    ),
    x=(1, 2, 3, 4, 6),
    y=(-4.212, -8.174, -11.72, -14.88, -14.88),
    axes=("Gauss nodes a step", "log10 of the difference"),
    logs=False,
    rubric=(
        "3 points: rounding is reached by code of one's own, in about thirty lines.",
        "1 point: says what the difference is with few nodes, and why it ends at rounding.",
    ),
    answers=(
        "4: -15.2 ± 0.2 with twelve nodes; four are enough, one gives a first-order picture. The integral along a step "
        "is all that is approximated.",
        "2: The path kernel is exact.",
    ),
    held=(lowest_value(2),),
)

without_the_contributors = Laboratory(
    number="11.6",
    quantity="how much farther the log-probability falls without the six largest contributors than without six at random",
    low=0.9,
    high=1.35,
    ours="1.12, with a spread of 0.07 over three seeds; six at random cost 0.03, and the six had contributed 1.8",
    widest=0.8,
    readings=(
        (
            -0.3,
            0.3,
            "No difference: are the six the largest for that test point and its right class, and is the network trained "
            "again without them?",
        ),
        (
            0.3,
            0.9,
            "Less than ours: are the six the largest with their sign, six of them, in the column of the right class, and the fall "
            "a difference, not a share?",
        ),
        (
            1.35,
            2.5,
            "Near what the six had contributed, 1.8. Wanted is what the log-probability loses when the network is trained again "
            "without them.",
        ),
        (
            -2.0,
            -0.5,
            "Negative: a fall is before minus after, and the network is trained again without the six, not on them alone.",
        ),
    ),
    x=(
        1.808,
        1.535,
        1.201,
        1.796,
        1.175,
        2.022,
        0.8208,
        1.208,
        1.778,
        2.354,
        1.42,
        1.601,
        1.094,
        3.887,
        1.283,
        1.257,
        2.899,
        3.077,
        1.883,
        2.29,
    ),
    y=(
        1.292,
        0.9691,
        0.544,
        1.395,
        0.4078,
        1.364,
        0.4195,
        0.3662,
        1.359,
        1.6,
        1.062,
        1.135,
        0.3145,
        2.366,
        1.175,
        0.817,
        0.9267,
        1.796,
        1.493,
        1.561,
    ),
    axes=("contributed by the six", "falls farther by"),
    logs=False,
    rubric=(
        "2 points: both falls, with a spread, retrained from the same initial weights.",
        "1 point: compares with what the six contributed: the order is nearly kept, the size is not; others take over.",
        "1 point: does not call a contribution a cause without saying of which intervention.",
    ),
    answers=(
        "4: Without the six the log-probability falls by 1.16, without six others by 0.03. They had contributed 1.8: "
        "part is taken over, though test points with larger contributions fall "
        "farther (correlation 0.83). So here a contribution tells what removal does, in its sign and order.",
        "2: The six largest matter most.",
    ),
    held=(
        mean_of("falls farther by", 0.06),
        mean_abscissa("contributed", 0.5, wanted=1.8),
    ),
)

power_of_the_units = Laboratory(
    number="12.6",
    quantity="the power of the number of units in the error of the moved network",
    low=-0.6,
    high=-0.42,
    ours="-0.51, with a standard error of 0.02 over ten seeds",
    widest=0.1,
    readings=(
        (-1.2, -0.8, "That is the power of the squared error."),
        (0.42, 0.6, "The sign is lost: the error falls."),
        (-0.1, 0.1, "No fall: the moves depend on the width; take them anew for each network."),
    ),
    x=(64, 256, 1024, 4096, 16384),
    y=(0.3371, 0.1985, 0.0804, 0.0417, 0.02123),
    axes=("units", "relative error"),
    logs=True,
    rubric=(
        "2 points: the power with its error, over several seeds.",
        "1 point: a mean over random units: Monte Carlo.",
        "1 point: what moves: each unit less and less, all together enough.",
    ),
    answers=(
        "4: -0.51 ± 0.02: the moved network is a mean over random units. Four times the units halve the error, and halve each unit's move.",
        "2: More units, less error.",
    ),
    held=(power_of(0.07),),
)

do_labels_help = Laboratory(
    number="13.6",
    quantity="the points that true labels gain over shuffled ones",
    low=-1.2,
    high=1.2,
    ours="-0.14, with a standard error of 0.17 over ten draws",
    widest=0.8,
    readings=(
        (1.2, 100, "Were the test images' labels used, or other training images for the two kernels?"),
        (-100, -1.2, "Is the plain kernel the same in both, and only the label part shuffled?"),
    ),
    x=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    y=(0.0, -0.2778, 0.2778, -0.2778, -1.389, -0.2778, -0.2778, 0.0, 0.2778, 0.5556),
    axes=("draw", "true minus shuffled"),
    logs=False,
    rubric=(
        "2 points: both gains in pairs, with a standard error, and the conclusion that they allow.",
        "1 point: says why a gain against the plain kernel alone would not do (the label part is also a smoothing or a longer kernel).",
        "1 point: says what data, kernel or size might show a gain (chapter 13 has one).",
    ),
    answers=(
        "4: True labels are -0.14 ± 0.17 points ahead of shuffled ones: no gain that ten draws of a hundred digits can "
        "see. A gain over the plain kernel alone would also come from any added part.",
        "2: Labels do not help.",
    ),
    held=(mean_of("true minus shuffled", 0.08),),
    least=0.02,
)

what_training_made = Laboratory(
    number="14.6",
    quantity="the points that the kernel after training gains over the one before",
    low=0.2,
    high=2.9,
    ours="+1.5, with a standard error of 0.4 and a spread of 1.4 over ten seeds",
    widest=2.5,
    readings=(
        (-0.2, 0.2, "No gain: is it in points (not in shares), on the test images, and of the kernel after 30 epochs?"),
        (
            -3.5,
            -0.2,
            "A loss. After minus before? Are both kernels put to the same images, and the targets one-hot (not the labels as numbers)?",
        ),
        (
            2.9,
            12,
            "More than ours: is the ridge a thousandth of each kernel's own mean diagonal, and the kernel the pseudo-NTK?",
        ),
        (12, 101, "That is an accuracy, or a gain of the networks themselves; wanted is the regression's, after less before."),
    ),
    x=(0, 1, 3, 10, 30),
    y=(92.1, 92.6, 93.1, 93.2, 93.57),
    axes=("epochs before the kernel is taken", "accuracy, per cent"),
    logs=False,
    rubric=(
        "2 points: the gain in pairs, with a standard error.",
        "1 point: beside the network's own accuracy, or the infinite kernel's.",
        "1 point: says what the gain does not show (the same regression, one architecture, 300 images).",
    ),
    answers=(
        "4: +1.5 ± 0.4 points over ten networks, most of it in the first three epochs; the networks themselves are at "
        "91. So training makes part of what a fixed kernel lacks.",
        "2: The trained kernel is better.",
    ),
    held=(
        rise_of(1.2),
        first_value(2, wanted=92),
    ),
)

power_of_the_scale = Laboratory(
    number="15.6",
    quantity="the power of the scale in the change of a ReLU network's kernel",
    low=-0.82,
    high=-0.43,
    ours="-0.58, with a standard error of 0.02 over five seeds; tanh -1.13, since at the smallest scale the next order still counts",
    widest=0.25,
    readings=(
        (
            -1.2,
            -0.9,
            "That is what a smooth network's kernel does, and what weights do with any activation: was it a ReLU network's kernel?",
        ),
        (0.45, 0.8, "The sign is lost: the change falls as the scale grows."),
        (-0.3, 0.1, "Next to no fall. Is the network centred, and the rate divided by the square of the scale?"),
    ),
    x=(32, 80, 200, 500),
    y=(0.02153, 0.01136, 0.00729, 0.00434),
    axes=("scale", "relative change of the kernel"),
    logs=True,
    rubric=(
        "2 points: the power with its error over several networks, and tanh's beside it.",
        "1 point: units that turn, with random signs: why it is not one.",
        "1 point: says at which end the curve is steeper, or that the power is a fit over this range.",
    ),
    answers=(
        "4: -0.58 ± 0.02 for ReLU against -1.13 ± 0.05 for tanh. Few units turn, with signs that have nothing to do with one another, so "
        "their sum falls like a root; at the small scales the smooth part still adds to it, so the fit is between -1/2 and -1.",
        "2: The kernel changes less for larger scales, with power -0.6.",
    ),
    held=(power_of(0.08),),
)

price_of_noise = Laboratory(
    number="16.6",
    quantity="what noise on the targets is multiplied by on the circle, without a ridge",
    low=1.55,
    high=1.8,
    ours="1.66, with a standard error of 0.02 over thirty draws of 200 points (and 5/3 by interpolation between neighbours)",
    widest=0.3,
    readings=(
        (
            1.9,
            2.1,
            "That is what the formula says, and what one gets on the training points: take new points, with new noise.",
        ),
        (1.8, 1.9, "A little too much. Has the kernel a bias? Without one it does not see odd waves."),
        (1.1, 1.55, "Too little for the circle: is there a ridge, or are these more dimensions?"),
        (0.55, 0.8, "The new targets have noise of their own, of variance 1: it belongs to the error."),
        (0.9, 1.1, "Noise alone, and nothing lost by the fit: is there a ridge, or are new targets compared with 0?"),
        (2.1, 100, "More than the formula, which is 2: is the error a mean square, and the noise of variance 1?"),
    ),
    x=(2, 3, 4, 6, 10),
    y=(1.658, 1.436, 1.37, 1.293, 1.352),
    axes=("dimensions", "error over noise"),
    logs=False,
    rubric=(
        "2 points: the factor on the circle with its standard error over draws, and other dimensions beside it.",
        "1 point: the formula's value beside the measured one, and that they differ on the circle by more than the error.",
        "1 point: a reason, or a test of one (features that are not independent; interpolation between two neighbours).",
    ),
    answers=(
        "4: 1.66 ± 0.02 on the circle, where the formula says 1.99; 1.44 against 1.53 in three dimensions, and nearly the same in ten. "
        "Between two neighbours the fit is nearly a straight line, which averages their noise: that gives 5/3. Waves on a circle "
        "are not independent variables.",
        "2: The noise is multiplied by 1.7, so overfitting is not so bad.",
    ),
    held=(value_at(2, 0.1), last_value(0.12, wanted=1.33)),
    least=0.003,
)

nearness_of_one_network = Laboratory(
    number="17.6",
    quantity="the power of the width that one network's distance from its limit goes with",
    low=-0.75,
    high=-0.25,
    ours="-0.44, with a standard error of 0.05 over ten draws of a gated network with 16 to 256 channels",
    widest=0.5,
    readings=(
        (0.35, 0.65, "The sign is turned: the error falls with the width."),
        (
            -1.15,
            -0.85,
            "That is the power of the mean over many networks, or of the squared error. Take one network's, not squared.",
        ),
        (
            -0.25,
            -0.02,
            "Too flat. Does one draw stand apart at the largest width, are the draws few, or the network so deep that it wants larger widths? "
            "A layer of fixed width keeps its own noise.",
        ),
        (-0.02, 0.02, "Nothing falls: has the limit been taken in the same parameterization as the networks' kernels?"),
        (-0.85, -0.75, "A little too steep: the narrowest networks may be too narrow, or the draws too few."),
    ),
    x=(16, 32, 64, 128, 256),
    y=(0.2747, 0.2022, 0.1195, 0.1075, 0.0835),
    axes=("channels", "relative error"),
    logs=True,
    rubric=(
        "2 points: a power with an uncertainty from several draws, and an architecture that the chapter has not.",
        "1 point: errors of single networks, with a root mean square or each draw's own fit, not of their mean.",
        "1 point: says what it does not show: that the kernel stays in training, or that this width is wide enough for a task.",
    ),
    answers=(
        "4: -0.44 ± 0.05 over ten draws, for a network that multiplies a tanh by a normed gate: the root of the width. Its kernel at the start "
        "is a mean over channels. Whether it stays in training is another question, and at 256 channels it is still 8 per cent off.",
        "2: The error falls with the width, so wide networks are kernels.",
    ),
    held=(power_of(0.2),),
)

labels_in_a_spread = Laboratory(
    number="18.6",
    quantity="the spread of networks with 64 units a layer for shuffled labels, over that for true ones",
    low=1.12,
    high=1.45,
    ours="1.27 to 1.31 over some ten draws, with a spread of 0.03",
    widest=0.2,
    readings=(
        (0.6, 0.9, "The quotient is turned round: the shuffled labels' spread over that of the true ones."),
        (
            0.9,
            1.12,
            "Next to no difference: are labels shuffled, networks trained for 800 steps, and spreads taken on the other images?",
        ),
        (
            1.45,
            1.85,
            "That much we saw with 16 or 32 units, with spreads on the training images, and after 2,000 steps; or it is a quotient of "
            "variances, and not of deviations.",
        ),
        (0.12, 0.45, "That is the surplus over 1: wanted is the quotient itself."),
        (0.03, 0.12, "That is about the difference of the two deviations: wanted is their quotient."),
    ),
    x=(16, 32, 64, 128),
    y=(1.75, 1.51, 1.27, 1.15),
    axes=("width", "quotient of the spreads"),
    logs=True,
    rubric=(
        "2 points: a quotient above 1 with its spread over draws of networks and of the shuffling, at several widths.",
        "1 point: says that the surplus falls with the width, towards the limit in which labels do not matter.",
        "1 point: says what it does not show: which labels are wrong, or that a larger spread is a better one.",
    ),
    answers=(
        "4: 1.27 ± 0.01 at 64 units, 1.75 at 16: finite networks move their kernels more for labels that are hard, and end farther apart. "
        "In the limit it would be 1. Whether the spread is larger where labels are wrong is not measured.",
        "2: Shuffled labels make networks more uncertain.",
    ),
    held=(value_at(64, 0.05), fall_of(0.3, 0.6)),
)

effects_of_many = Laboratory(
    number="19.6",
    quantity="what taking ten images away changes, over the sum of their single effects",
    low=1.3,
    high=1.7,
    ours="1.51 over ten draws, with a spread of 0.06 between draws",
    widest=0.2,
    readings=(
        (0.59, 0.77, "The quotient is turned round: the fall over the sum of single effects."),
        (
            0.77,
            1.2,
            "Near 1 it is for a single image, where it is an identity; for images at random, whose effects nearly cancel, it is no number "
            "at all: 0.5 to 1.4 by draw. Are the ten those that add most to the label's output, and are all ten away when you fit again?",
        ),
        (
            1.2,
            1.3,
            "Less than we saw with ten: are they the ten that add most to the label's output, two to five of them, or another kernel's?",
        ),
        (
            1.7,
            2.2,
            "More than we saw. Are the ten largest taken without their sign? Those that take from the output are not asked for.",
        ),
        (
            2.2,
            8.0,
            "Far more than we saw: are the images away when you fit again, or are their labels set to zero, or other images taken?",
        ),
        (
            8.0,
            25.0,
            "Far more than we saw: fit again without the ten. Coefficients that stay as they were do not know that others are gone.",
        ),
        (
            25.0,
            45.0,
            "The sum is one of influences, first order, which are small where samples hold their own fit: wanted are effects.",
        ),
        (0.25, 0.4, "That is the fall itself: divide by the sum of single effects."),
        (0.4, 0.59, "That is about the surplus over 1: wanted is the quotient itself."),
        (
            0.2,
            0.25,
            "That is about the sum of single effects, or a quotient by effects without the division by the inverse's diagonal.",
        ),
        (0.01, 0.1, "The sum is one of the parts of the prediction, not of the effects of leaving out."),
    ),
    x=(1, 2, 5, 10, 20, 40),
    y=(1.0, 1.146, 1.378, 1.507, 1.551, 1.591),
    axes=("images taken away", "change over the sum of single effects"),
    logs=True,
    rubric=(
        "2 points: a quotient above 1 with its spread over draws of images, and 1 for a single image, which is an identity.",
        "1 point: says why: images of one kind stand in for each other, so that one alone is hardly missed.",
        "1 point: says what it does not show: a regression on a fixed kernel, no network that moves; other groups may do otherwise.",
    ),
    answers=(
        "4: 1.51 ± 0.02 over ten draws, 1 for one image by definition: an image that is left out is replaced by its like, and ten of them "
        "together are not. Sums of single effects are too small for groups of like images; for images that hold against each other they may "
        "be too large. This is a fixed kernel.",
        "2: Effects do not add up, so leave-one-out is useless.",
    ),
    held=(value_at(10, 0.02), first_value(0.02, 1.0), last_value(0.25, 1.591)),
    least=0.003,
)
