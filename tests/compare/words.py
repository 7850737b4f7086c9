"""The words of the generated table. Their order is part of the data: another order makes another table."""

NOUN = """almond apple avocado bagel banana basil bean beef berry biscuit bread broccoli broth butter cabbage
cake candy carrot cashew celery cereal cheddar cheese cherry chicken chili chips chocolate cider cinnamon clam coconut
cod coffee cookie corn crab cracker cream cucumber curry date dill dough egg eggplant fennel fig fish flour garlic
ginger granola grape gravy ham hazelnut herb honey hummus jam jelly juice kale ketchup kiwi lamb leek lemon lentil
lettuce lime lobster mango maple melon milk mint muffin mushroom mustard noodle nut oat oil olive onion orange oregano
oyster pancake papaya parsley pasta peach peanut pear peas pecan pepper pesto pickle pie pineapple pistachio pizza plum
pork potato pretzel pudding pumpkin quinoa radish raisin raspberry ravioli rice rye saffron salad salami salmon salsa
salt sauce sausage scallop sesame shrimp soda soup soy spice spinach squash steak sugar sushi syrup taco tea thyme tofu
tomato tortilla trout tuna turkey turmeric vanilla vinegar waffle walnut water wheat wine yam yeast yogurt zucchini""".split()
ADJ = """organic fresh frozen roasted smoked raw sliced whole creamy crunchy spicy sweet salted unsalted gluten-free
vegan classic premium local imported hand-picked farm-raised low-fat sugar-free stone-ground sun-dried slow-cooked
family-size bite-sized award-winning certified artisanal traditional seasonal wild-caught grass-fed cold-pressed""".split()
GLUE = """the a of with and for in from our to is made by best when served at room temperature ingredients contains
may contain keep refrigerated after opening serving size per pack store dry place ready minutes oven simply add
enjoy great source fiber protein calories no artificial flavors colors since 1974 kosher net weight oz lb each case""".split()
# pieces a CSV or JSON writer must quote or escape
HARD = ['"World\'s Best"', '12" round', 'a "must-have", they say', 'crème brûlée', 'jalapeño', '½ cup', '100% 有機茶',
        'Käse & Brötchen', '🍕🍷', 'line one\nline two', 'step 1:\r\nmix;\tstep 2:\nbake', 'C:\\pantry\\shelf', '<b>NEW</b>',
        'señor’s “choice”', 'ложка мёда', '5 g, 10 g, 15 g', "l'été", '™ brand']
CATS = [f"{a}/{b}" for a in "Produce Dairy Meat Seafood Bakery Frozen Pantry Snacks Beverages Household".split()
        for b in ["Everyday", "Organic", "Value", "Seasonal, limited", 'Chef\'s "pick"', "Family"]]
